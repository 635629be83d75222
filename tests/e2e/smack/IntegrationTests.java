import org.igniterealtime.smack.inttest.SmackIntegrationTestFramework;
import org.igniterealtime.smack.inttest.XmppConnectionDescriptor;
import org.igniterealtime.smack.inttest.XmppConnectionManager;
import org.jivesoftware.smack.tcp.XMPPTCPConnection;
import org.jivesoftware.smack.tcp.XMPPTCPConnectionConfiguration;

/** Runs Smack's own integration tests at a given port, for which they have no setting. */
class IntegrationTests {
    public static void main(String[] arguments) throws Exception {
        int port = Integer.getInteger("port");
        XmppConnectionManager.addConnectionDescriptor(
            XmppConnectionDescriptor.buildWith(XMPPTCPConnection.class, XMPPTCPConnectionConfiguration.class, XMPPTCPConnectionConfiguration.Builder.class)
                .withNickname("port")
                .applyExtraConfiguration(builder -> builder.setHost("127.0.0.1").setPort(port))
                .build());
        SmackIntegrationTestFramework.main(arguments);
    }
}
