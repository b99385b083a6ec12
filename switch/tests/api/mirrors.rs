//! Mirrors over the API.

use crate::Switch;
use sluice_proto::v1::mirror::Output;
use sluice_proto::v1::mirror_service_client::MirrorServiceClient;
use sluice_proto::v1::{DeleteMirrorRequest, ListMirrorsRequest, Mirror, SetMirrorRequest};
use tonic::Code;

fn asked(mirror: Mirror) -> SetMirrorRequest {
    SetMirrorRequest { bridge: String::new(), mirror: Some(mirror) }
}

#[tokio::test]
async fn a_mirror_is_set_listed_as_it_was_asked_for_and_removed() {
    let switch = Switch::start();
    let mut client = MirrorServiceClient::new(switch.channel().await);
    let mirror = Mirror {
        name: "m".into(),
        select_src_port: vec!["p1".into()],
        select_dst_port: vec!["p1".into(), "p2".into()],
        select_vlan: vec![0, 10],
        output: Some(Output::OutputPort("p3".into())),
        snaplen: Some(128),
        ..Mirror::default()
    };
    client.set_mirror(asked(mirror.clone())).await.unwrap();
    let list = client.list_mirrors(ListMirrorsRequest::default()).await.unwrap().into_inner().mirrors;
    assert_eq!((list.len(), &*list[0].bridge, list[0].active, list[0].packets), (1, "br0", true, 0));
    assert_eq!(list[0].mirror.as_ref(), Some(&mirror));
    let changed = Mirror { select_all: true, output: Some(Output::OutputVlan(99)), snaplen: None, ..mirror.clone() };
    client.set_mirror(asked(changed.clone())).await.unwrap();
    let list = client.list_mirrors(ListMirrorsRequest { bridge: "br0".into() }).await.unwrap().into_inner().mirrors;
    assert_eq!((list.len(), list[0].mirror.as_ref()), (1, Some(&changed)));
    let named = |name: &str| DeleteMirrorRequest { bridge: "br0".into(), name: name.into() };
    assert_eq!(client.delete_mirror(named("n")).await.unwrap_err().code(), Code::NotFound);
    client.delete_mirror(named("m")).await.unwrap();
    for (bad, code) in [
        (Mirror { output: None, ..mirror.clone() }, Code::InvalidArgument),
        (Mirror { select_vlan: vec![4096], ..mirror.clone() }, Code::InvalidArgument),
        (Mirror { snaplen: Some(70_000), ..mirror.clone() }, Code::InvalidArgument),
        (Mirror { name: String::new(), ..mirror.clone() }, Code::InvalidArgument),
        (Mirror { select_src_port: vec!["p9".into()], ..mirror.clone() }, Code::NotFound),
    ] {
        assert_eq!(client.set_mirror(asked(bad)).await.unwrap_err().code(), code);
    }
    assert_eq!(client.list_mirrors(ListMirrorsRequest::default()).await.unwrap().into_inner().mirrors, []);
}
