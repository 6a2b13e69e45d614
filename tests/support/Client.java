import com.ericsson.otp.erlang.*;

/**
 * Asks a node what a Java program would ask of it, and prints each answer: a ping, calls of a GenServer by name, rpc.
 * Arguments: the own full name, the other's, the cookie. Exits with an error when one does not come.
 */
public class Client {
    private static OtpErlangAtom atom(String text) {
        return new OtpErlangAtom(text);
    }

    private static OtpErlangTuple tuple(OtpErlangObject... elements) {
        return new OtpErlangTuple(elements);
    }

    /** stdlib, gen.erl: {'$gen_call', {Pid, Ref}, Request}, answered by {Ref, Reply}. */
    private static OtpErlangObject call(OtpMbox box, OtpNode node, String other, OtpErlangObject request) throws Exception {
        OtpErlangRef tag = node.createRef();
        box.send("Elixir.KeyValueStore", other, tuple(atom("$gen_call"), tuple(box.self(), tag), request));
        OtpErlangTuple answer = (OtpErlangTuple) box.receive(20_000);
        if (answer == null || !answer.elementAt(0).equals(tag)) {
            throw new Exception("no answer to " + request + ": " + answer);
        }
        return answer.elementAt(1);
    }

    public static void main(String[] args) throws Exception {
        String name = args[0], other = args[1], cookie = args[2];
        OtpErlangObject key = new OtpErlangBinary("key".getBytes()), value = tuple(atom("a"), new OtpErlangLong(1L << 40));

        OtpNode node = new OtpNode(name, cookie);
        OtpMbox box = node.createMbox();
        System.out.println("ping " + node.ping(other, 20_000));
        System.out.println("put " + call(box, node, other, tuple(atom("put"), key, value)));
        System.out.println("get " + call(box, node, other, tuple(atom("get"), key)));
        node.close();

        OtpConnection connection = new OtpSelf(name + "2", cookie).connect(new OtpPeer(other));
        for (Object[] rpc : new Object[][] {
            {"Elixir.KeyValueStore", "put", new OtpErlangList(new OtpErlangObject[] {key, atom("rpc")})},
            {"Elixir.KeyValueStore", "get", new OtpErlangList(new OtpErlangObject[] {key})},
            {"os", "cmd", new OtpErlangList(new OtpErlangObject[] {new OtpErlangString("id")})},
        }) {
            connection.sendRPC((String) rpc[0], (String) rpc[1], (OtpErlangList) rpc[2]);
            System.out.println("rpc " + connection.receiveRPC());
        }
        connection.close();
    }
}
