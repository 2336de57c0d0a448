//! Reads, writes and the table of files.

use super::*;

#[test]
fn a_file_keeps_what_is_written() {
    each(|mut ring| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let shared = Arc::new(OwnedFd::from(file));
        let file = ring.register_shared(&shared).unwrap();
        for (class, durable) in [(Class::Small, true), (Class::Large, false)] {
            let mut buffer = ring.pool().take(class).unwrap();
            for (at, byte) in buffer.iter_mut().enumerate() {
                *byte = (at / 7) as u8;
            }
            let range = 8..buffer.len() as u32;
            let bytes = buffer[8..].to_vec();
            submit(&mut ring, Operation::Write { file, offset: 1000, buffer, range: range.clone(), durable }, 1);
            let written = one(&mut ring);
            assert_eq!(written.result, Ok(bytes.len() as u32));
            let mut buffer = buffer_of(written);
            buffer.fill(0);
            submit(&mut ring, Operation::Read { file, offset: 1000, buffer, range: range.clone() }, 2);
            let read = one(&mut ring);
            assert_eq!(read.result, Ok(bytes.len() as u32));
            assert_eq!(buffer_of(read)[8..], bytes);
            assert_eq!(std::fs::read(&path).unwrap()[1000..], bytes);
        }
        // Beyond the pool: plain memory of another arena.
        let other = arena().pool().take(Class::Small).unwrap();
        submit(&mut ring, Operation::Read { file, offset: 1000 + 262_144 - 8 - 100, buffer: other, range: 0..4096 }, 3);
        assert_eq!(one(&mut ring).result, Ok(100), "short at the end of the file");
        for data_only in [false, true] {
            submit(&mut ring, Operation::Sync { file, data_only }, 4);
            assert_eq!(one(&mut ring).result, Ok(0));
        }
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        submit(&mut ring, Operation::Allocate { file, mode, offset: 4096, length: 8192 }, 5);
        assert_eq!(one(&mut ring).result, Ok(0));
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes[4096..4096 + 8192].iter().all(|byte| *byte == 0));
        assert_eq!(bytes.len(), 1000 + 262_144 - 8);
        ring.close(file);
        drop(ring);
        assert_eq!(Arc::strong_count(&shared), 1);
    });
}

#[test]
fn an_error_of_the_kernel_comes_with_the_buffer() {
    each(|mut ring| {
        let file = ring.register(File::open("/dev/null").unwrap().into()).unwrap();
        let buffer = ring.pool().take(Class::Small).unwrap();
        submit(&mut ring, Operation::Write { file, offset: 0, buffer, range: 0..4096, durable: false }, 1);
        let done = one(&mut ring);
        assert_eq!(done.result, Err(Errno(libc::EBADF)));
        assert_eq!(buffer_of(done).len(), 4096);
    });
}

#[test]
fn the_table_of_files_is_bounded() {
    each(|mut ring| {
        let pairs: Vec<_> = (0..8).map(|_| pair(&mut ring)).collect();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let file = Arc::new(OwnedFd::from(ours));
        assert_eq!(ring.register_shared(&file).unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
        ring.close(pairs[3].0);
        ring.register_shared(&file).unwrap();
    });
}

#[test]
fn without_a_slot_the_operation_comes_back() {
    each(|mut ring| {
        let (socket, _peer) = pair(&mut ring);
        for token in 0..16 {
            let buffer = ring.pool().take(Class::Small).unwrap();
            submit(&mut ring, Operation::ReceiveInto { socket, buffer, range: 0..1, behind: 0 }, token);
        }
        let refused = ring.submit(Operation::Send { socket, message: message(b"x") }, 99);
        assert!(matches!(refused, Err(Operation::Send { message, .. }) if message.bytes == b"x"));
        assert_eq!(ring.in_flight(), 16);
        ring.close(socket);
        wait_for(&mut ring, 16);
        // Refused ones count too: they wait for the next turn.
        for _ in 0..16 {
            submit(&mut ring, Operation::Shutdown { socket }, 0);
        }
        assert!(ring.submit(Operation::Shutdown { socket }, 0).is_err());
        wait_for(&mut ring, 16);
    });
}
