//! A long stream in one direction.

use sluice_tests::host::PATIENCE;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// Bytes of a block.
const BLOCK: usize = 1 << 20;

/// Block number `n`: no two are alike, and no part of one is like another.
fn block(n: usize, block: &mut [u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ (n as u64 + 1);
    for word in block.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
}

/// Whoever connects to `listener` gets so many blocks; each is compared as it comes to `client`.
pub(crate) fn download(client: &TcpStream, listener: TcpListener, blocks: usize) {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = vec![0; BLOCK];
        for n in 0..blocks {
            block(n, &mut bytes);
            stream.write_all(&bytes).unwrap();
        }
    });
    let (mut got, mut wanted) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut stream = client;
    for n in 0..blocks {
        stream.read_exact(&mut got).unwrap_or_else(|e| panic!("block {n} of {blocks}: {e}"));
        block(n, &mut wanted);
        assert!(got == wanted, "block {n} changed on its way");
    }
    assert_eq!(stream.read(&mut got[..1]).unwrap(), 0, "the stream ends behind the last block");
    server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}
