//! Where outgoing PDUs are written.

/// Where PDUs are written. The server's is the connection's outgoing message.
pub trait Sink {
    /// Appends bytes.
    fn put(&mut self, bytes: &[u8]);
    /// Appends `n` bytes to be filled in.
    fn reserve(&mut self, n: usize) -> &mut [u8];
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn reserve(&mut self, n: usize) -> &mut [u8] {
        let length = self.len();
        self.resize(length + n, 0);
        &mut self[length..]
    }
}
