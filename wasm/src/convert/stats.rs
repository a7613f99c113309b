//! Counters.

use serde::Serialize;
use std::collections::BTreeMap;
use thicket_core::*;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsTraffic {
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<u32>,
    rx_bytes: u64,
    tx_bytes: u64,
    rx_packets: u64,
    tx_packets: u64,
    flows: u32,
    idle_ms: f64,
    sent_ms: f64,
    /// Of sessions: 0 before anything was probed.
    path_mtu: u16,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsServiceStats {
    account: u32,
    payload_bytes: u64,
    overhead_bytes: u64,
}

#[derive(Serialize)]
struct JsRelay {
    packets: u64,
    bytes: u64,
    labels: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsLedger {
    payload: u64,
    overhead: u64,
    control: u64,
    keep_alive: u64,
}

/// `DataPlaneStats`.
#[derive(Serialize)]
pub struct JsStats {
    links: Vec<JsTraffic>,
    sessions: Vec<JsTraffic>,
    services: Vec<JsServiceStats>,
    relay: JsRelay,
    media: f64,
    ledger: JsLedger,
    trains: JsTrains,
    drops: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct JsTrains {
    sealed: [u64; 7],
    opened: [u64; 7],
}

/// Counters as JavaScript sees them.
pub fn stats(stats: &Stats) -> JsStats {
    let never = |ms: Option<u64>| ms.map_or(-1.0, |ms| ms as f64);
    let traffic = |t: Traffic| JsTraffic {
        link: None,
        session: None,
        rx_bytes: t.rx_bytes,
        tx_bytes: t.tx_bytes,
        rx_packets: t.rx_packets,
        tx_packets: t.tx_packets,
        flows: 0,
        idle_ms: -1.0,
        sent_ms: -1.0,
        path_mtu: 0,
    };
    JsStats {
        links: stats
            .links
            .iter()
            .map(|l| JsTraffic {
                link: Some(l.link.0),
                idle_ms: l.idle_ms as f64,
                ..traffic(l.traffic)
            })
            .collect(),
        sessions: stats
            .sessions
            .iter()
            .map(|s| JsTraffic {
                session: Some(s.session.0),
                flows: s.flows,
                idle_ms: never(s.idle_ms),
                sent_ms: never(s.sent_ms),
                path_mtu: s.path_mtu.unwrap_or(0),
                ..traffic(s.traffic)
            })
            .collect(),
        services: stats
            .services
            .iter()
            .map(|s| JsServiceStats {
                account: s.account,
                payload_bytes: s.payload_bytes,
                overhead_bytes: s.overhead_bytes,
            })
            .collect(),
        relay: JsRelay {
            packets: stats.relay_packets,
            bytes: stats.relay_bytes,
            labels: stats.relay_labels as f64,
        },
        media: stats.media as f64,
        ledger: JsLedger {
            payload: stats.ledger.payload,
            overhead: stats.ledger.overhead,
            control: stats.ledger.control,
            keep_alive: stats.ledger.keep_alive,
        },
        trains: JsTrains {
            sealed: stats.sealed.0,
            opened: stats.opened.0,
        },
        drops: stats.drops.iter().copied().collect(),
    }
}
