import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

import org.jivesoftware.smack.ConnectionConfiguration.SecurityMode;
import org.jivesoftware.smack.packet.Message;
import org.jivesoftware.smack.tcp.XMPPTCPConnection;
import org.jivesoftware.smack.tcp.XMPPTCPConnectionConfiguration;
import org.jivesoftware.smackx.commands.AdHocCommandManager;
import org.jivesoftware.smackx.ping.PingManager;
import org.jivesoftware.smackx.pubsub.AccessModel;
import org.jivesoftware.smackx.pubsub.Affiliation;
import org.jivesoftware.smackx.pubsub.Item;
import org.jivesoftware.smackx.pubsub.LeafNode;
import org.jivesoftware.smackx.pubsub.PayloadItem;
import org.jivesoftware.smackx.pubsub.PubSubManager;
import org.jivesoftware.smackx.pubsub.SimplePayload;
import org.jivesoftware.smackx.pubsub.Subscription;
import org.jivesoftware.smackx.xdata.packet.DataForm;
import org.jxmpp.jid.BareJid;
import org.jxmpp.jid.DomainBareJid;
import org.jxmpp.jid.impl.JidCreate;

/** Uses all pubsub features of Smack; a stanza that Smack cannot parse ends its connection, and then the program. */
class Walk {
    static final String PASSWORD = System.getProperty("password");
    static final int PORT = Integer.getInteger("port");
    static DomainBareJid service;

    public static void main(String[] arguments) throws Exception {
        service = JidCreate.domainBareFrom(System.getProperty("service"));
        XMPPTCPConnection owner = login("admin");
        XMPPTCPConnection reader = login("alice");
        itemsOneByOne(owner, reader);
        aFormSubmittedTwice(owner);
        ownersLists(owner);
        waiting(owner, reader);
        commands(owner);
        for (XMPPTCPConnection connection : List.of(owner, reader)) {
            check(PingManager.getInstanceFor(connection).pingMyServer(), "the connection is alive");
            connection.disconnect();
        }
        System.out.println("done");
        System.exit(0);
    }

    static XMPPTCPConnection login(String user) throws Exception {
        XMPPTCPConnection connection = new XMPPTCPConnection(XMPPTCPConnectionConfiguration.builder()
            .setXmppDomain("localhost").setHost("127.0.0.1").setPort(PORT).setSecurityMode(SecurityMode.disabled)
            .setUsernameAndPassword(user, PASSWORD).setResource("smack").build());
        connection.connect().login();
        return connection;
    }

    static PubSubManager pubsub(XMPPTCPConnection connection) {
        return PubSubManager.getInstanceFor(connection, service);
    }

    static BareJid jid(XMPPTCPConnection connection) {
        return connection.getUser().asEntityBareJid();
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError("not so: " + what);
        }
    }

    static void itemsOneByOne(XMPPTCPConnection owner, XMPPTCPConnection reader) throws Exception {
        LeafNode node = pubsub(owner).createNode("batches");
        LeafNode read = pubsub(reader).getLeafNode("batches");
        List<List<String>> heard = new ArrayList<>();
        CountDownLatch all = new CountDownLatch(3);
        read.addItemEventListener(event -> {
            heard.add(event.getItems().stream().map(item -> ((Item) item).getId()).toList());
            all.countDown();
        });
        read.subscribe(jid(reader));
        List<PayloadItem<SimplePayload>> batch = new ArrayList<>();
        for (String id : List.of("one", "two", "three")) {
            batch.add(new PayloadItem<>(id, new SimplePayload("<x xmlns='urn:x'/>")));
        }
        node.publish(batch);
        check(all.await(30, TimeUnit.SECONDS), "three events, after " + heard);
        check(heard.equals(List.of(List.of("one"), List.of("two"), List.of("three"))), "an event for each item: " + heard);
        check(read.getItems(2).size() == 2, "two of the newest items");
    }

    static void aFormSubmittedTwice(XMPPTCPConnection owner) throws Exception {
        LeafNode node = pubsub(owner).createNode("configured");
        var form = node.getNodeConfiguration().getFillableForm();
        for (String title : List.of("First", "Second")) {
            form.setTitle(title);
            node.sendConfigurationForm(form);
        }
        check("Second".equals(node.getNodeConfiguration().readFirstValue("pubsub#title")), "the second title");
    }

    static void ownersLists(XMPPTCPConnection owner) throws Exception {
        LeafNode node = pubsub(owner).createNode("lists");
        // Not connected: Smack cannot parse the notification of a subscription that an owner set (8.8.4).
        BareJid stranger = JidCreate.bareFrom("bob@localhost");
        node.modifyAffiliationAsOwner(List.of(new Affiliation(stranger, Affiliation.Type.member)));
        node.modifySubscriptionsAsOwner(List.of(new Subscription(stranger, Subscription.State.subscribed)));
        check(node.getSubscriptionsAsOwner().size() == 1, "the subscription that the owner set");
    }

    static void waiting(XMPPTCPConnection owner, XMPPTCPConnection reader) throws Exception {
        LeafNode node = pubsub(owner).createNode("approved");
        var form = node.getNodeConfiguration().getFillableForm();
        form.setAccessModel(AccessModel.authorize);
        node.sendConfigurationForm(form);
        CountDownLatch asked = new CountDownLatch(1);
        owner.addAsyncStanzaListener(stanza -> asked.countDown(),
            stanza -> stanza instanceof Message && DataForm.from(stanza) != null);
        pubsub(reader).getLeafNode("approved").subscribe(jid(reader));
        check(asked.await(30, TimeUnit.SECONDS), "the owner is asked");
        AdHocCommandManager.getInstance(owner).getRemoteCommand(service, "http://jabber.org/protocol/pubsub#get-pending")
            .execute();
    }

    static void commands(XMPPTCPConnection admin) throws Exception {
        AdHocCommandManager manager = AdHocCommandManager.getInstance(admin);
        for (var item : manager.discoverCommands(service).getItems()) {
            manager.getRemoteCommand(service, item.getNode()).execute();
        }
    }
}
