//! iSCSI login keys with their result functions, and CHAP
