//! iSCSI PDUs, text keys and digests: bytes in, meaning out
