// Walks through mellium's package for pubsub and ends with an error if an answer is not what it should be.
package main

import (
	"context"
	"encoding/xml"
	"fmt"
	"log"
	"net"
	"os"
	"slices"
	"time"

	"mellium.im/sasl"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/form"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/pubsub"
	"mellium.im/xmpp/stanza"
)

const node = "mellium"

var service jid.JID

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func expect[T comparable](what string, found, expected T) {
	if found != expected {
		log.Fatalf("%s: %v instead of %v", what, found, expected)
	}
}

func iq() stanza.IQ {
	return stanza.IQ{To: service}
}

func login(ctx context.Context, port, user, password string) *xmpp.Session {
	conn := must(net.Dial("tcp", net.JoinHostPort("127.0.0.1", port)))
	me := must(jid.Parse(user + "@localhost/mellium"))
	features := func(*xmpp.Session, *xmpp.StreamConfig) xmpp.StreamConfig {
		return xmpp.StreamConfig{Features: []xmpp.StreamFeature{xmpp.SASL("", password, sasl.Plain), xmpp.BindResource()}}
	}
	// Loopback counts as secure, because the test servers have no certificates.
	return must(xmpp.NewSession(ctx, me.Domain(), me, conn, xmpp.Secure, xmpp.NewNegotiator(features)))
}

func publish(ctx context.Context, session *xmpp.Session, id string) {
	payload := xmlstream.Wrap(nil, xml.StartElement{Name: xml.Name{Space: "urn:x", Local: "x"}})
	expect("published", must(pubsub.PublishIQ(ctx, session, iq(), node, id, payload)), id)
}

func fetch(ctx context.Context, session *xmpp.Session, query pubsub.Query) []string {
	var ids []string
	items := pubsub.FetchIQ(ctx, iq(), session, query)
	for items.Next() {
		id, payload := items.Item()
		must(xmlstream.Copy(xmlstream.Discard(), payload))
		ids = append(ids, id)
	}
	if err := items.Err(); err != nil {
		log.Fatal(err)
	}
	if err := items.Close(); err != nil {
		log.Fatal(err)
	}
	return ids
}

func configure(ctx context.Context, session *xmpp.Session, data *form.Data, title string) {
	must(data.Set("pubsub#title", title))
	if err := pubsub.SetConfigIQ(ctx, session, iq(), node, data); err != nil {
		log.Fatal(err)
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	port, user, password := os.Args[1], os.Args[2], os.Args[3]
	service = must(jid.Parse(os.Args[4]))
	session := login(ctx, port, user, password)
	go func() { _ = session.Serve(nil) }()

	// The form of the default configuration creates a node; the node's own form is submitted twice.
	data := must(pubsub.GetDefaultConfigIQ(ctx, session, iq()))
	must(data.Set("pubsub#title", "New"))
	if err := pubsub.CreateNodeIQ(ctx, session, iq(), node, data); err != nil {
		log.Fatal(err)
	}
	data = must(pubsub.GetConfigIQ(ctx, session, iq(), node))
	configure(ctx, session, data, "First")
	configure(ctx, session, data, "Second")
	data = must(pubsub.GetConfigIQ(ctx, session, iq(), node))
	title, _ := data.GetString("pubsub#title")
	expect("title", title, "Second")

	ids := []string{"one", "two", "three"}
	for _, id := range ids {
		publish(ctx, session, id)
	}
	expect("items", fmt.Sprint(fetch(ctx, session, pubsub.Query{Node: node})), fmt.Sprint(ids))
	expect("newest items", fmt.Sprint(fetch(ctx, session, pubsub.Query{Node: node, MaxItems: 2})), fmt.Sprint(ids[1:]))
	if err := pubsub.DeleteIQ(ctx, session, iq(), node, "two", true); err != nil {
		log.Fatal(err)
	}
	left := slices.DeleteFunc(ids, func(id string) bool { return id == "two" })
	expect("items", fmt.Sprint(fetch(ctx, session, pubsub.Query{Node: node})), fmt.Sprint(left))
	if err := session.Close(); err != nil {
		log.Fatal(err)
	}
}
