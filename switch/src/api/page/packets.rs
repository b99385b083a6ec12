//! Packets of a link, as a file to keep.

use super::sample::{Sampler, said};
use crate::api::pcapng::{Packet, PcapNg};
use sluice_proto::MAX_MESSAGE_LEN;
use sluice_proto::v1::CaptureRequest;
use sluice_proto::v1::capture_service_client::CaptureServiceClient;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What ends it: so much time, so many packets, or so many bytes of them.
const TIME: Duration = Duration::from_secs(5);
const MOST: u64 = 1000;
const MOST_BYTES: usize = 16 << 20;

impl Sampler {
    /// What crosses a link from now on, for a while: a pcapng file, with what becomes of each packet.
    pub(super) async fn capture(&self, link: String) -> Result<Vec<u8>, String> {
        let ports = self.ports().await.map_err(said)?;
        let drawing = self.with_scene(move |scene| scene.drawing(&ports)).await?;
        let edge = drawing.links.into_iter().find(|edge| edge.name == link);
        let edge = edge.ok_or_else(|| format!("there is no link {link}"))?;
        let port = edge.ports.into_iter().flatten().next().ok_or_else(|| format!("the link {link} has no port"))?;
        let about = format!("{} - {}, at the port {port}", edge.ends[0], edge.ends[1]);
        let mut client = CaptureServiceClient::new(self.channel()).max_decoding_message_size(MAX_MESSAGE_LEN);
        let request = CaptureRequest { ports: vec![port], ..CaptureRequest::default() };
        let mut stream = client.capture(request).await.map_err(said)?.into_inner();
        let end = Instant::now() + TIME;
        let mut file = PcapNg::begin(Vec::new(), [(link.as_str(), about.as_str())]).map_err(|e| e.to_string())?;
        let (mut written, mut lost) = (0, 0);
        while written < MOST && file.get_mut().len() < MOST_BYTES {
            // Nothing more comes when the switch ends, and nothing in time is no mistake.
            let Ok(Some(reply)) = timeout_at(end, stream.message()).await.unwrap_or(Ok(None)) else { break };
            lost = reply.lost;
            for frame in reply.frames.iter().take(usize::try_from(MOST - written).unwrap_or(usize::MAX)) {
                file.put(&Packet::from(frame)).map_err(|error| error.to_string())?;
                written += 1;
            }
        }
        file.count(&[(written, lost)]).map_err(|error| error.to_string())?;
        Ok(file.into_inner())
    }
}
