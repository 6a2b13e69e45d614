import com.ericsson.otp.erlang.*;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.concurrent.ConcurrentHashMap;

/**
 * A server on Jinterface, as its users write one: an OtpNode, a mailbox that is read in a loop, and a map of Erlang
 * objects. A second mailbox, with a thread of its own, takes the casts.
 *
 * <p>Usage: JinterfaceServer NAME COOKIE. Registers with the epmd at ERL_EPMD_PORT, says "ready" on stdout, ends with
 * its stdin.
 */
public final class JinterfaceServer {
    private static final OtpErlangAtom OK = new OtpErlangAtom("ok");
    private static final OtpErlangAtom NIL = new OtpErlangAtom("nil");

    private static final ConcurrentHashMap<OtpErlangObject, OtpErlangObject> store = new ConcurrentHashMap<>();

    public static void main(String[] arguments) throws Exception {
        OtpNode node = new OtpNode(arguments[0], arguments[1], 0, new OnLoopback());
        for (String name : new String[] {"kv", "kv_replicated"}) {
            OtpMbox mailbox = node.createMbox(name);
            Thread thread = new Thread(() -> serve(mailbox), name);
            thread.setDaemon(true);
            thread.start();
        }
        System.out.println("ready");
        while (System.in.read() >= 0) {
        }
        System.exit(0);
    }

    private static void serve(OtpMbox mailbox) {
        for (;;) {
            try {
                handle(mailbox, (OtpErlangTuple) mailbox.receive());
            } catch (OtpErlangExit | OtpErlangDecodeException | ClassCastException skipped) {
                // Anything but the requests of the loads is skipped.
            }
        }
    }

    private static void handle(OtpMbox mailbox, OtpErlangTuple message) {
        String kind = ((OtpErlangAtom) message.elementAt(0)).atomValue();
        if (kind.equals("$gen_cast")) {
            carryOut((OtpErlangTuple) message.elementAt(1));
        } else if (kind.equals("$gen_call")) {
            OtpErlangTuple from = (OtpErlangTuple) message.elementAt(1);
            OtpErlangObject answer = carryOut((OtpErlangTuple) message.elementAt(2));
            OtpErlangObject[] reply = {from.elementAt(1), answer};
            mailbox.send((OtpErlangPid) from.elementAt(0), new OtpErlangTuple(reply));
        }
    }

    private static OtpErlangObject carryOut(OtpErlangTuple request) {
        OtpErlangObject key = request.elementAt(1);
        if (request.arity() == 3) {
            store.put(key, request.elementAt(2));
            return OK;
        }
        return store.getOrDefault(key, NIL);
    }

    /** Sockets as Jinterface makes them, but listening on the loopback alone. */
    private static final class OnLoopback extends OtpSocketTransportFactory {
        @Override
        public OtpServerTransport createServerTransport(int port) throws IOException {
            ServerSocket listener = new ServerSocket(port, 50, InetAddress.getByName("127.0.0.1"));
            return new OtpServerTransport() {
                @Override
                public int getLocalPort() {
                    return listener.getLocalPort();
                }

                @Override
                public OtpTransport accept() throws IOException {
                    Socket socket = listener.accept();
                    socket.setTcpNoDelay(true);
                    return new OtpSocketTransport(socket);
                }

                @Override
                public void close() throws IOException {
                    listener.close();
                }
            };
        }
    }
}
