-- Routes one message of gjallar to many recipients, so that the server parses it once.
--
--   VirtualHost "example.org"
--     modules_enabled = { "gjallar_fanout" } -- or added to the list that this host has
--     gjallar_fanout_components = { "pubsub.example.org" }
--
-- The message is addressed to this host. Its child <recipients xmlns="urn:x-gjallar:fanout:0"/> has a line for each
-- recipient: a suffix for the id of that recipient's copy, which may be empty; a space; the JID. Each copy is routed as
-- if the component had sent it by itself, before the next stanza of the component is read: a ping that follows the
-- message comes back when all copies are routed.

local st = require "util.stanza";
local jid_prep = require "util.jid".prep;

local xmlns = "urn:x-gjallar:fanout:0";
local trusted = module:get_option_set("gjallar_fanout_components", {});

local full_sessions, bare_sessions = prosody.full_sessions, prosody.bare_sessions;
local core_post_stanza = prosody.core_post_stanza;

-- Only the components that may use it see the feature. The reply of mod_disco is shared between all that ask.
module:hook("iq-get/host/http://jabber.org/protocol/disco#info:query", function (event)
	local origin, node = event.origin, event.stanza.tags[1].attr.node;
	if origin.type ~= "component" or not trusted:contains(origin.host) or (node and node ~= "") then return; end
	local function send(reply)
		reply = st.clone(reply);
		reply:get_child("query", "http://jabber.org/protocol/disco#info"):tag("feature", { var = xmlns }):up();
		return origin.send(reply);
	end
	event.origin = setmetatable({ send = send }, { __index = origin });
end, 10);

-- A copy with attributes of its own. Children are shared between copies, as no module of Prosody changes them in place.
local function copy_to(message, children, jid, id)
	local copy = st.clone(message, true);
	local tags = copy.tags;
	for i = 1, #children do
		copy[i], tags[i] = children[i], children[i];
	end
	copy.attr.to, copy.attr.id = jid, id;
	return copy;
end

module:hook("message/host", function (event)
	local origin, message = event.origin, event.stanza;
	local recipients = message:get_child("recipients", xmlns);
	if not recipients or message.attr.type == "error" then return; end
	if origin.type ~= "component" or not trusted:contains(origin.host) then
		origin.send(st.error_reply(message, "auth", "forbidden", "not in gjallar_fanout_components"));
		return true;
	end

	local children = {};
	for _, child in ipairs(message.tags) do
		if child ~= recipients then children[#children + 1] = child; end
	end
	local id = message.attr.id;
	for suffix, jid in (recipients:get_text() or ""):gmatch("([^ \n]*) ([^\n]+)") do
		local to = (full_sessions[jid] or bare_sessions[jid]) and jid or jid_prep(jid);
		local copy = copy_to(message, children, to or jid, id and id .. suffix);
		if to then
			-- What fails for one recipient must not keep the message from the others.
			local ok, err = pcall(core_post_stanza, origin, copy);
			if not ok then module:log("error", "Failed to route a copy: %s", err); end
		else
			origin.send(st.error_reply(copy, "modify", "jid-malformed", "The destination address is invalid"));
		end
	end
	return true;
end, 10);
