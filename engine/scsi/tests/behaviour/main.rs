//! What initiators see of a logical unit: each command through the public interface, against a store in memory.

mod access;
mod attentions;
mod background;
mod capacity;
mod compare_and_write;
mod copy;
mod fences;
mod hostile;
mod inquiry;
mod logs;
mod medium;
mod mode;
mod opcodes;
mod protection;
mod provisioning;
mod reservations;
mod rig;
mod saved;
mod service;
mod tasks;
mod tokens;
mod transfer;
mod uninterrupted;
mod unit_control;
mod verify;
