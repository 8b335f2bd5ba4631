//! Where the log ends, asked for now and then beside the reading of it: a client that has lost sight of a
//! partition reads nothing there and says nothing of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::settings::Voice;

const LOOK_EVERY: Duration = Duration::from_secs(2);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What was told last.
#[derive(Debug)]
struct Told {
    /// The place behind the last record, by partition.
    ends: BTreeMap<i32, i64>,
    /// When all partitions were told of. A client that has lost sight of one may be told nothing of it.
    at: Instant,
}

/// The ends of all partitions, as they were told last; a thread asks for as long as the consumer lives.
#[derive(Debug)]
pub(super) struct Ends {
    told: Arc<Mutex<Told>>,
    /// By partition: where reading stands short of an end, and since when.
    stands: BTreeMap<i32, (i64, Instant)>,
}

impl Ends {
    pub fn of(consumer: &Arc<BaseConsumer<Voice>>, topic: &str, partitions: i32) -> Self {
        let told = Arc::new(Mutex::new(Told { ends: BTreeMap::new(), at: Instant::now() }));
        let (asked, answers, topic) = (Arc::downgrade(consumer), Arc::clone(&told), topic.to_owned());
        let ask = move || look(&asked, &answers, &topic, partitions);
        if let Err(error) = thread::Builder::new().name("kafka-ends".into()).spawn(ask) {
            tracing::error!(%error, "the system gives no thread to ask where the log ends");
        }
        Self { told, stands: BTreeMap::new() }
    }

    /// Since when reading has not moved in a partition that goes on behind where it stands, or it is unknown
    /// where one ends, the longest of all; and how many records are still to be read.
    pub fn behind(&mut self, positions: &[(i32, i64)], now: Instant) -> (Option<Instant>, i64) {
        let mut records = 0;
        let told = locked(&self.told);
        for (partition, end) in &told.ends {
            let position = positions.iter().find(|(of, _)| of == partition).map_or(0, |(_, next)| *next);
            if position >= *end {
                self.stands.remove(partition);
                continue;
            }
            records += end - position;
            let (stands_at, since) = self.stands.entry(*partition).or_insert((position, now));
            if *stands_at != position {
                (*stands_at, *since) = (position, now);
            }
        }
        let unknown = Some(told.at).filter(|at| now.saturating_duration_since(*at) > LOOK_EVERY * 2);
        (self.stands.values().map(|(_, since)| *since).chain(unknown).min(), records)
    }
}

fn locked(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look(consumer: &Weak<BaseConsumer<Voice>>, told: &Mutex<Told>, topic: &str, partitions: i32) {
    loop {
        thread::park_timeout(LOOK_EVERY);
        // The connection is over.
        let Some(consumer) = consumer.upgrade() else { return };
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            // Asked for by this in place of a time, the broker tells the end.
            if list.add_partition_offset(topic, partition, Offset::End).is_err() {
                return;
            }
        }
        match consumer.offsets_for_times(list, ANSWER_WITHIN) {
            Ok(found) => {
                let mut told = locked(told);
                let mut are_known = true;
                for one in found.elements() {
                    match (one.error(), one.offset()) {
                        (Ok(()), Offset::Offset(end)) => drop(told.ends.insert(one.partition(), end)),
                        _ => are_known = false,
                    }
                }
                if are_known {
                    told.at = Instant::now();
                }
            }
            // A broker that is away is told of elsewhere.
            Err(error) => tracing::debug!(%error, "Kafka does not say where the log ends"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_move_short_of_an_end_is_behind_since_then() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let first = Told { ends: BTreeMap::from([(0, 10), (1, 5)]), at: at(11) };
        let told = Arc::new(Mutex::new(first));
        let mut ends = Ends { told: Arc::clone(&told), stands: BTreeMap::new() };
        assert_eq!(ends.behind(&[(0, 10), (1, 5)], at(0)), (None, 0));
        told.lock().unwrap().ends.insert(1, 8);
        assert_eq!(ends.behind(&[(0, 10), (1, 5)], at(1)), (Some(at(1)), 3));
        assert_eq!(ends.behind(&[(0, 10), (1, 6)], at(2)), (Some(at(2)), 2), "it moves");
        assert_eq!(ends.behind(&[(0, 10), (1, 6)], at(9)), (Some(at(2)), 2), "it does not");
        assert_eq!(ends.behind(&[(0, 10), (1, 8)], at(10)), (None, 0));
        assert_eq!(ends.behind(&[], at(11)), (Some(at(11)), 18), "nothing was read yet");
        assert_eq!(ends.behind(&[(0, 10), (1, 8)], at(15)), (None, 0));
        assert_eq!(ends.behind(&[(0, 10), (1, 8)], at(16)), (Some(at(11)), 0), "nobody says where it ends");
    }
}
