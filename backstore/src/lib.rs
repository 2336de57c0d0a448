//! Block stores: RAM, null, file and block device, and filters around them
