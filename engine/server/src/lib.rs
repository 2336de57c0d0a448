//! Joins engine and stores: cores, connections, dispatch, placement, the control thread
