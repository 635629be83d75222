-- Paste into /etc/prosody/prosody.cfg.lua. The JID and the secret are those of gjallar's configuration.

-- Where components may connect; this is the default.
component_ports = { 5347 }
component_interfaces = { "127.0.0.1", "::1" }

-- Prosody holds small packets back by default, which delays every answer.
network_settings = { nagle = false }

Component "pubsub.example.org"
  component_secret = "change me"

-- Optional, with the package prosody-modules: the access models presence and roster, which look at the rosters of a
-- node's owners. Here, below the secret:
--   modules_enabled = { "privilege" }
-- and below the line VirtualHost "example.org":
--   modules_enabled = { "privilege" }
--   privileged_entities = { ["pubsub.example.org"] = { roster = "get" } }
