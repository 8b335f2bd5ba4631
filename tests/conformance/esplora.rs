//! A server of this test's own that speaks the part of Esplora's HTTP API which is used, over a real Bitcoin
//! node: what it says of transactions, blocks and the mempool is the node's word. Esplora's own server is not
//! built here, as its database takes longer to build than all tests to run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// Transactions in a page, as Esplora has it.
const PAGE: usize = 25;

#[derive(Clone)]
pub struct Node {
    url: String,
    user: String,
    password: String,
    client: reqwest::Client,
    /// Blocks do not change.
    blocks: Arc<Mutex<BTreeMap<String, Value>>>,
}

type Failed = (StatusCode, String);

impl Node {
    async fn call(&self, method: &str, params: Value) -> Result<Value, Failed> {
        let body = json!({"method": method, "params": params});
        let request = self.client.post(&self.url).basic_auth(&self.user, Some(&self.password)).json(&body);
        let away = |error: reqwest::Error| (StatusCode::BAD_GATEWAY, error.to_string());
        let answer: Value = request.send().await.map_err(away)?.json().await.map_err(away)?;
        match &answer["error"] {
            Value::Null => Ok(answer["result"].clone()),
            error => Err((StatusCode::BAD_REQUEST, error.to_string())),
        }
    }

    async fn block(&self, height: u64) -> Result<Value, Failed> {
        let hash = self.call("getblockhash", json!([height])).await?;
        let key = hash.as_str().unwrap_or_default().to_owned();
        let known = self.blocks.lock().expect("no panic").get(&key).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let block = self.call("getblock", json!([hash, 2])).await?;
        self.blocks.lock().expect("no panic").insert(key, block.clone());
        Ok(block)
    }

    /// Confirmed transactions that pay an address, newest first.
    async fn confirmed(&self, address: &str) -> Result<Vec<Value>, Failed> {
        let tip = self.call("getblockcount", json!([])).await?.as_u64().unwrap_or_default();
        let mut found = Vec::new();
        for height in (0..=tip).rev() {
            let block = self.block(height).await?;
            let status = json!({"confirmed": true, "block_height": height, "block_hash": block["hash"],
                "block_time": block["time"]});
            let all = block["tx"].as_array().into_iter().flatten();
            found.extend(all.filter(|one| pays(one, address)).map(|one| as_esplora(one, &status)));
        }
        Ok(found)
    }

    async fn unconfirmed(&self, address: &str) -> Result<Vec<Value>, Failed> {
        let ids = self.call("getrawmempool", json!([])).await?;
        let mut found = Vec::new();
        for id in ids.as_array().into_iter().flatten() {
            let one = self.call("getrawtransaction", json!([id, true])).await?;
            if pays(&one, address) {
                found.push(as_esplora(&one, &json!({"confirmed": false})));
            }
        }
        Ok(found)
    }
}

fn pays(transaction: &Value, address: &str) -> bool {
    transaction["vout"]
        .as_array()
        .is_some_and(|all| all.iter().any(|to| to["scriptPubKey"]["address"] == address))
}

fn as_esplora(transaction: &Value, status: &Value) -> Value {
    let outputs = transaction["vout"].as_array().into_iter().flatten().map(|to| {
        let sum = bitcoin::Amount::from_btc(to["value"].as_f64().expect("a sum")).expect("a sum");
        json!({"scriptpubkey_address": to["scriptPubKey"]["address"], "value": sum.to_sat()})
    });
    json!({"txid": transaction["txid"], "vout": outputs.collect::<Vec<_>>(), "status": status})
}

async fn tip(State(node): State<Node>) -> Result<String, Failed> {
    Ok(node.call("getblockcount", json!([])).await?.to_string())
}

async fn transactions(
    State(node): State<Node>,
    Path(address): Path<String>,
) -> Result<Json<Vec<Value>>, Failed> {
    let mut found = node.unconfirmed(&address).await?;
    found.extend(node.confirmed(&address).await?.into_iter().take(PAGE));
    Ok(Json(found))
}

async fn older(
    State(node): State<Node>,
    Path((address, last)): Path<(String, String)>,
) -> Result<Json<Vec<Value>>, Failed> {
    let all = node.confirmed(&address).await?.into_iter();
    let rest = all.skip_while(|one| one["txid"] != last).skip(1).take(PAGE);
    Ok(Json(rest.collect()))
}

/// Serves from now on; answers with the root of the API.
pub async fn serve(settings: &BTreeMap<String, String>) -> String {
    let node = Node {
        url: settings["BITCOIND__URL"].clone(),
        user: settings["BITCOIND__USER"].clone(),
        password: settings["BITCOIND__PASSWORD"].clone(),
        client: reqwest::Client::builder().no_proxy().build().expect("a client"),
        blocks: Arc::default(),
    };
    let api = Router::new()
        .route("/blocks/tip/height", get(tip))
        .route("/address/{address}/txs", get(transactions))
        .route("/address/{address}/txs/chain/{last}", get(older))
        .with_state(node);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, api).await });
    format!("http://{at}")
}
