/* Client on libstrophe: subscribes to a node, publishes there, and waits for the event. Prints each step as a line. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strophe.h>

#define PUBSUB "http://jabber.org/protocol/pubsub"

static const char *jid, *service, *node;
static int steps_left = 3;

static void done(xmpp_conn_t *conn)
{
    if (--steps_left == 0)
        xmpp_disconnect(conn);
}

static xmpp_stanza_t *element(xmpp_ctx_t *ctx, const char *name, const char *ns)
{
    xmpp_stanza_t *made = xmpp_stanza_new(ctx);
    xmpp_stanza_set_name(made, name);
    if (ns)
        xmpp_stanza_set_ns(made, ns);
    return made;
}

static void put(xmpp_stanza_t *parent, xmpp_stanza_t *child)
{
    xmpp_stanza_add_child(parent, child);
    xmpp_stanza_release(child);
}

static void request(xmpp_conn_t *conn, const char *id, xmpp_stanza_t *content, xmpp_handler answered)
{
    xmpp_ctx_t *ctx = xmpp_conn_get_context(conn);
    xmpp_stanza_t *iq = xmpp_iq_new(ctx, "set", id), *pubsub = element(ctx, "pubsub", PUBSUB);
    xmpp_stanza_set_to(iq, service);
    put(pubsub, content);
    put(iq, pubsub);
    xmpp_id_handler_add(conn, answered, id, NULL);
    xmpp_send(conn, iq);
    xmpp_stanza_release(iq);
}

static xmpp_stanza_t *inner(xmpp_stanza_t *stanza, const char *outer, const char *name)
{
    xmpp_stanza_t *found = xmpp_stanza_get_child_by_name(stanza, outer);
    return found ? xmpp_stanza_get_child_by_name(found, name) : NULL;
}

static int published(xmpp_conn_t *conn, xmpp_stanza_t *answer, void *data)
{
    xmpp_stanza_t *publish = inner(answer, "pubsub", "publish");
    (void)data;
    printf("published %s\n", xmpp_stanza_get_id(xmpp_stanza_get_child_by_name(publish, "item")));
    done(conn);
    return 0;
}

static int subscribed(xmpp_conn_t *conn, xmpp_stanza_t *answer, void *data)
{
    xmpp_ctx_t *ctx = xmpp_conn_get_context(conn);
    xmpp_stanza_t *subscription = inner(answer, "pubsub", "subscription");
    xmpp_stanza_t *publish = element(ctx, "publish", NULL), *item = element(ctx, "item", NULL);
    (void)data;
    printf("subscription %s\n", xmpp_stanza_get_attribute(subscription, "subscription"));
    done(conn);
    xmpp_stanza_set_attribute(publish, "node", node);
    xmpp_stanza_set_id(item, "from-strophe");
    put(item, element(ctx, "x", "urn:x"));
    put(publish, item);
    request(conn, "publish", publish, published);
    return 0;
}

static int told(xmpp_conn_t *conn, xmpp_stanza_t *message, void *data)
{
    xmpp_stanza_t *items = inner(message, "event", "items");
    (void)data;
    if (items) {
        printf("event %s\n", xmpp_stanza_get_id(xmpp_stanza_get_child_by_name(items, "item")));
        done(conn);
    }
    return 1;
}

static void changed(xmpp_conn_t *conn, xmpp_conn_event_t event, int error, xmpp_stream_error_t *stream_error,
                    void *data)
{
    xmpp_ctx_t *ctx = xmpp_conn_get_context(conn);
    (void)error, (void)stream_error, (void)data;
    if (event == XMPP_CONN_CONNECT) {
        xmpp_stanza_t *presence = xmpp_presence_new(ctx), *subscribe = element(ctx, "subscribe", NULL);
        xmpp_handler_add(conn, told, NULL, "message", NULL, NULL);
        xmpp_send(conn, presence);
        xmpp_stanza_release(presence);
        xmpp_stanza_set_attribute(subscribe, "node", node);
        xmpp_stanza_set_attribute(subscribe, "jid", jid);
        request(conn, "subscribe", subscribe, subscribed);
    } else {
        xmpp_stop(ctx);
    }
}

int main(int argc, char **argv)
{
    xmpp_ctx_t *ctx;
    xmpp_conn_t *conn;
    if (argc != 6)
        return 2;
    jid = argv[2], service = argv[4], node = argv[5];
    xmpp_initialize();
    ctx = xmpp_ctx_new(NULL, xmpp_get_default_logger(XMPP_LEVEL_WARN));
    conn = xmpp_conn_new(ctx);
    xmpp_conn_set_flags(conn, XMPP_CONN_FLAG_DISABLE_TLS);
    xmpp_conn_set_jid(conn, jid);
    xmpp_conn_set_pass(conn, argv[3]);
    if (xmpp_connect_client(conn, "127.0.0.1", (unsigned short)atoi(argv[1]), changed, NULL) == XMPP_EOK)
        xmpp_run(ctx);
    xmpp_conn_release(conn);
    xmpp_ctx_free(ctx);
    xmpp_shutdown();
    return steps_left;
}
