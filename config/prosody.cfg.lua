-- Two parts to paste into /etc/prosody/prosody.cfg.lua. `prosodyctl check config` finds what stands in the wrong place.
-- Restart Prosody afterwards: a reload adds no component, loads no module and opens no port.

---- Part 1: at the top, above the first VirtualHost or Component. Prosody ignores these options anywhere else, such as in a
---- file of /etc/prosody/conf.d.

-- Where components may connect; this is the default.
component_ports = { 5347 }
component_interfaces = { "127.0.0.1", "::1" }

-- The size of a component's stanzas. Not below gjallar's link.max_stanza_bytes, which is 512 KiB by default: the rest
-- leaves room for block lists.
component_stanza_size_limit = 2 * 1024 * 1024

-- Prosody holds small packets back by default, which delays every answer.
network_settings = { nagle = false }

---- Part 2: at the end. The JID and the secret are those of gjallar's configuration.

Component "pubsub.example.org"
  component_secret = "change me"

-- Optional, with the package prosody-modules: the access models presence and roster, which look at the roster of a
-- node's owner. Here, below the secret:
--   modules_enabled = { "privilege" }
-- and what names privilege below.

-- Optional: events for many users of this server are parsed once instead of once for each user. The Debian package of
-- gjallar installs the module mod_gjallar_fanout where Debian's Prosody looks for modules. It is in config/prosody of the
-- sources; elsewhere, add its folder to the list plugin_paths above the first VirtualHost. A second list would replace it:
--   plugin_paths = { "/usr/local/lib/prosody/modules", "/path/of/config/prosody" }
-- and what names gjallar_fanout below.

-- For either, below the line VirtualHost "example.org". Leave out what is not wanted. A host has one list of modules, and
-- a second one would replace it: if it has one already, add to that.
--   modules_enabled = {
--     "privilege";
--     "gjallar_fanout";
--   }
--   privileged_entities = { ["pubsub.example.org"] = { roster = "get" } }
--   gjallar_fanout_components = { "pubsub.example.org" }
