//! The process: configuration, control socket, monitoring, limits, policies, TLS, start and stop.

mod control;
mod doctor;
mod lifecycle;
mod limits;
mod monitoring;
mod policies;
mod reload;
mod systemd;
mod tls;
