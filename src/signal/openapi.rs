//! The API's description at `/v1/openapi.json`. Paths come with their handlers, from the router.

use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};
use utoipa::openapi::{Paths, SecurityRequirement};

const DESCRIPTION: &str = "Rooms that forward video. Errors are `application/problem+json` (RFC 9457) with a \
stable `code`. Tokens are JWTs, HS256: `iss` is the key id, `sub` the identity, `exp` a must, and `room` the \
grant `{room, publish, subscribe, chat, files, admin}`. Where guests are admitted, and under `--dev`, a join \
needs none.";

/// All but the paths.
pub fn base() -> OpenApi {
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    let info = InfoBuilder::new()
        .title("Antiphon")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .license(Some(license))
        .build();
    let mut bearer = Http::new(HttpAuthScheme::Bearer);
    bearer.bearer_format = Some("JWT".into());
    let components = ComponentsBuilder::new().security_scheme("token", SecurityScheme::Http(bearer)).build();
    OpenApiBuilder::new()
        .info(info)
        .paths(Paths::new())
        .components(Some(components))
        // Either: without a token, the rules for guests hold.
        .security(Some([
            SecurityRequirement::new::<_, _, String>("token", []),
            SecurityRequirement::default(),
        ]))
        .build()
}
