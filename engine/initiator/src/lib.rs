//! Sans-IO iSCSI initiator for load, tests and simulation
