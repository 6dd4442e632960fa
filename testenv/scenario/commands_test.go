package scenario

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/portreeve/portreeve/testenv"
	"github.com/portreeve/portreeve/testenv/mta"
	"github.com/portreeve/portreeve/testenv/peer"
)

// The commands of stories, beside those of testscript. `up` comes first; after
// it, `exec client|router|gateway|inner|origin COMMAND…` runs a command there, and
// the variables CLIENT4, CLIENT6, GATEWAY4, GATEWAY6, ORIGIN4, ORIGIN6 are set, and
// CLIENT4B, CLIENT6B, ORIGIN4B, ORIGIN6B for second addresses.
// A command that waits does so on a condition, up to patience.
var commands = map[string]func(*testscript.TestScript, bool, []string){
	"up":      command(up),      // [lan=MTU] [wan=MTU] [inner=MTU]: build the network
	"expand":  command(expand),  // FILE…: replace variables in files
	"replace": command(replace), // FILE OLD NEW: replace text in a file

	"start":  command(start),  // NAME NODE COMMAND…: in the background, output in NAME.out and NAME.err
	"signal": command(signal), // SIGNAL NAME
	"ended":  command(ended),  // NAME [CODE]: wait for its end and judge its exit code
	"await":  command(await),  // PATTERN COMMAND…: run it again and again until its output matches

	"postfix": command(startPostfix), // [SETTING…]: a real Postfix on the origin
	"server":  command(startServer),  // postfix|exim|opensmtpd [SETTING…]: one of these, for log and mail
	"fake":    command(startFake),    // [reset=POINT] [ext=WORD]… [tls=PAIR|implicit=PAIR [old] [handshake=drop|garbage|stall]] [VERB=FILE]…: an exact origin in its place
	"local":   command(local),        // ADDR:PORT: somebody else's server on the gateway, or on the origin
	"log":     command(postfixLog),   // PATTERN: wait for a line of Postfix's log and print it
	"sender":  command(startSender),  // ADDR: Exim as the client, which sends there what it is given on 127.0.0.1:25
	"sent":    command(senderLog),    // PATTERN: wait for a line of the sender's log and print it
	"mail":    command(postfixMail),  // COUNT FILE: wait for messages; the last must end like the file
	"got":     command(fakeGot),      // COUNT [FILE [PARAMETERS]]: wait for messages at the fake; the last is the file
	"nothing": command(fakeNothing),  // no session of the fake ended a message; all sessions are over

	"haproxy": command(startHAProxy), // FILE: HAProxy on the client's side

	"finds":   command(finds),   // [--FLAG…] CODE…: doctor complains of these, and calls nothing else an error; prints its words
	"says":    command(says),    // [--FLAG…] CODE…: doctor says these for information; prints its words
	"remedy":  command(remedy),  // [--FLAG…] CODE: type doctor's remedy on the gateway as printed, and the finding is gone
	"private": command(private), // what the gateway's commands see under /etc, /run and as mounts is the story's own from here on

	"greets":  command(greets),  // NODE ADDR:PORT: wait until a server says 220
	"refused": command(refused), // NODE ADDR:PORT: a connection is refused at once
	"silent":  command(silent),  // NODE ADDR:PORT: a SYN stays without an answer
	"walled":  command(walled),  // VERDICT ADDR:PORT: a SYN of the client stays without an answer, and the kernel side counts it
	"send":    command(send),    // [from=ADDR] [port=N] ADDR:PORT FILE: deliver, print the last reply
	"breaks":  command(breaks),  // rst|fin ADDR:PORT FILE: break off after each octet of the content
	"midway":  command(midway),  // start ADDR:PORT FILE | stop CODE…: begin a message; send the rest, and be told these codes
	"usurp":   command(usurp),   // SERVICE…: take its IPv4 slots by an inspector that dies at once
	"load":    command(load),    // start ADDR:PORT | start tls CAFILE NAME ADDR:PORT… | more N | stop

	"pki":        command(makePKI),         // DIR [expired|early|soon] [rsa] NAME=HOST[,HOST]…: DIR/NAME.pem and .key, by DIR/ca.pem, which is made once
	"tlssend":    command(tlsSend),         // [implicit] [ca=FILE] [name=HOST] [mail=PARAMETER] ADDR:PORT FILE: send inside TLS, print the certificate's subject
	"halfway":    command(halfway),         // drop|garbage|stall ADDR:PORT: a client that says STARTTLS, and then that, until it is sent away
	"nameserver": command(startNames),      // FILE: DNS on the origin, at NAMESERVER, with the records of a file; "secure NAME" is vouched for
	"https":      command(startPages),      // PAIR FILE: HTTPS on the origin, where every page is the file
	"keyless":    command(keyless),         // NAME: kill the process that holds the keys of a portreeve
	"steady":     command(steady),          // start ADDR:PORT | stop FILE: a session inside TLS that is held open, and then sends
	"prometheus": command(startPrometheus), // ADDR:PORT: a real Prometheus on the gateway that scrapes it
	"queried":    command(queried),         // VALUE EXPRESSION…: wait until Prometheus says so
	"linted":     command(linted),          // ADDR:PORT: promtool has nothing to say about the metrics there

	"flood":     command(flood),     // FIRST ADDR:PORT COUNT: SYNs from many addresses of the client's side
	"capture":   command(capture),   // NODE DEVICE
	"syn":       command(syn),       // relayed|forwarded FROM TO:PORT LOW-HIGH: the next SYN towards TO
	"fragments": command(fragments), // FROM: fragments from it were captured
	"oversize":  command(oversize),  // SIZE: no captured packet is larger

	"installed": command(installed), // ROOT PROGRAM…: the gateway has these programs of .build/roots/ROOT for exec and start
	"flow":      command(flow),      // start ADDR:PORT… | stop: mail that never stops for more than ten seconds
	"banned":    command(banned),    // start FROM ADDR:PORT[=WITNESS:PORT]… | stop: clients that try all the time, and are never answered, but when the witness, who is not ours, answers too

	"watcher": command(signalWatcher), // SIGNAL active|standby: to a watcher on the gateway, once it is there

	"snapshot": command(snapshot), // NAME
	"same":     command(same),     // NAME: the gateway is as it was
	"foreign":  command(foreign),  // attach DEVICE | ran | release COUNT: somebody else's tcx programs
	"meddle":   command(meddle),   // ends|unmarks|redirects|sees DEVICE | stop: somebody else's program that does that to packets
}

// stageKey finds the stage among a story's values.
type stageKey struct{}

// command makes a step of a story from a function that may fail. A step that
// is to fail is marked with an exclamation mark.
func command(run func(*stage, *testscript.TestScript, []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, negated bool, args []string) {
		err := run(ts.Value(stageKey{}).(*stage), ts, args)
		switch {
		case err != nil && errors.As(err, new(usage)):
			ts.Fatalf("%v", err)
		case err != nil && !negated:
			ts.Fatalf("%v", err)
		case err != nil:
			ts.Logf("[%v]", err)
		case negated:
			ts.Fatalf("unexpected success")
		}
	}
}

// usage is the error of a step that is written wrong; it fails the story also
// where a failure is wanted.
type usage string

func (u usage) Error() string { return "usage: " + string(u) }

// atLeast checks the number of arguments.
func atLeast(n int, args []string, text string) error {
	if len(args) < n {
		return usage(text)
	}
	return nil
}

func up(s *stage, ts *testscript.TestScript, args []string) error {
	var options testenv.Options
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		mtu, err := strconv.Atoi(value)
		if err != nil {
			return usage("up [lan=MTU] [wan=MTU] [inner=MTU]")
		}
		switch name {
		case "lan":
			options.RouterLANMTU = mtu
		case "wan":
			options.RouterWANMTU = mtu
		case "inner":
			options.Inner, options.InnerMTU = true, mtu
		default:
			return usage("up [lan=MTU] [wan=MTU] [inner=MTU]")
		}
	}
	env, err := testenv.New(s.ctx, options)
	if err != nil {
		return err
	}
	s.env = env
	for name, value := range map[string]string{
		"CLIENT4": env.Client4.String(), "CLIENT6": env.Client6.String(), "CLIENT4B": env.MoreClients[0].String(), "CLIENT6B": env.MoreClients6[0].String(),
		"ORIGIN4B": env.More4.String(), "ORIGIN6B": env.More6.String(),
		"GATEWAY4": env.Gateway4.String(), "GATEWAY6": env.Gateway6.String(),
		"ORIGIN4": env.Origin4.String(), "ORIGIN6": env.Origin6.String(),
		"PORTREEVE_BPFFS": env.BPFFS, "PORTREEVE_RUN_DIR": env.RunDir,
		"OPENSMTPD_DIR": filepath.Join(env.Dir, "opensmtpd"), "POSTFIX_DIR": filepath.Join(env.Dir, "postfix"),
	} {
		ts.Setenv(name, value)
	}
	return s.wrappers()
}

func expand(_ *stage, ts *testscript.TestScript, args []string) error {
	for _, name := range args {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		if err := os.WriteFile(ts.MkAbs(name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func replace(_ *stage, ts *testscript.TestScript, args []string) error {
	if len(args) != 3 {
		return usage("replace FILE OLD NEW")
	}
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		return fmt.Errorf("%s does not contain %q", args[0], args[1])
	}
	return os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, args[1], args[2], 1)), 0o644)
}

func start(s *stage, ts *testscript.TestScript, args []string) error {
	if err := atLeast(3, args, "start NAME NODE COMMAND…"); err != nil {
		return err
	}
	node, err := s.node(args[1])
	if err != nil {
		return err
	}
	return s.start(args[0], node, args[2:], s.environ(ts))
}

// environ is the environment of a command of the story's.
func (s *stage) environ(ts *testscript.TestScript) []string {
	environ := append(s.env.Environ(), "PATH="+ts.Getenv("PATH"), "HOME="+ts.Getenv("HOME"))
	if roots := ts.Getenv("SSL_CERT_FILE"); roots != "" {
		environ = append(environ, "SSL_CERT_FILE="+roots)
	}
	return environ
}

func await(s *stage, ts *testscript.TestScript, args []string) error {
	if err := atLeast(2, args, "await PATTERN COMMAND…"); err != nil {
		return err
	}
	pattern, err := regexp.Compile(args[0])
	if err != nil {
		return err
	}
	var output []byte
	err = s.await(func() bool {
		cmd := exec.CommandContext(s.ctx, "sh", append([]string{"-c", `exec "$@"`, "sh"}, args[1:]...)...)
		cmd.Dir = s.work
		cmd.Env = s.environ(ts)
		output, _ = cmd.CombinedOutput()
		return pattern.Match(output)
	})
	if err != nil {
		return fmt.Errorf("%w; the last output was:\n%s", err, output)
	}
	return nil
}

func startPostfix(s *stage, _ *testscript.TestScript, args []string) (err error) {
	ctx, cancel := s.patience()
	defer cancel()
	s.postfix, err = mta.StartPostfix(ctx, s.env.Origin, filepath.Join(s.env.Dir, "postfix"),
		[]netip.Addr{s.env.Origin4, s.env.Origin6}, args...)
	return err
}

func startFake(s *stage, ts *testscript.TestScript, args []string) error {
	behaviour := peer.Behaviour{Replies: make(map[string]string)}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		switch {
		case arg == "old" && behaviour.TLS != nil:
			behaviour.TLS.MinVersion, behaviour.TLS.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		case arg == "rsa" && behaviour.TLS != nil:
			behaviour.TLS.MaxVersion, behaviour.TLS.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
		case !ok:
			return usage("fake [reset=POINT] [ext=WORD]… [tls=PAIR|implicit=PAIR [old] [rsa] [handshake=drop|garbage|stall]] [VERB=FILE]…")
		case name == "handshake":
			behaviour.Handshake = peer.Handshake(value)
		case name == "reset":
			behaviour.Reset = peer.Point(value)
		case name == "ext":
			behaviour.Extensions = append(behaviour.Extensions, value)
		case name == "tls", name == "implicit":
			pair, err := tls.LoadX509KeyPair(ts.MkAbs(value+".pem"), ts.MkAbs(value+".key"))
			if err != nil {
				return err
			}
			behaviour.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
			behaviour.Implicit = name == "implicit"
		default:
			behaviour.Replies[name] = crlf(ts.ReadFile(value))
		}
	}
	return s.fake(behaviour)
}

func local(s *stage, _ *testscript.TestScript, args []string) error {
	at, err := netip.ParseAddrPort(strings.Join(args, ""))
	if err != nil {
		return usage("local ADDR:PORT")
	}
	node := s.env.Gateway
	if at.Addr() == s.env.Origin4 || at.Addr() == s.env.Origin6 {
		node = s.env.Origin
	}
	listener, err := node.Listen(at)
	if err == nil {
		s.locals = append(s.locals, peer.Serve(peer.Behaviour{}, listener))
	}
	return err
}

func postfixLog(s *stage, ts *testscript.TestScript, args []string) error {
	return awaitLog(s, s.postfix, ts, args)
}

func senderLog(s *stage, ts *testscript.TestScript, args []string) error {
	return awaitLog(s, s.sender, ts, args)
}

func startSender(s *stage, _ *testscript.TestScript, args []string) (err error) {
	if len(args) != 1 {
		return usage("sender ADDR")
	}
	host, err := netip.ParseAddr(args[0])
	if err != nil {
		return err
	}
	ctx, cancel := s.patience()
	defer cancel()
	s.sender, err = mta.StartEximSender(ctx, s.env.Client, filepath.Join(s.env.Dir, "sender"), host)
	return err
}

// awaitLog waits for a line in a server's log and prints it.
func awaitLog(s *stage, server *mta.Server, ts *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return usage("log or sent PATTERN")
	}
	pattern, err := regexp.Compile(args[0])
	if err != nil {
		return err
	}
	ctx, cancel := s.patience()
	defer cancel()
	line, err := server.AwaitLog(ctx, pattern)
	if err == nil {
		fmt.Fprintln(ts.Stdout(), line)
	}
	return err
}

func postfixMail(s *stage, ts *testscript.TestScript, args []string) error {
	if len(args) != 2 {
		return usage("mail COUNT FILE")
	}
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return usage("mail COUNT FILE")
	}
	ctx, cancel := s.patience()
	defer cancel()
	mail, err := s.postfix.AwaitMail(ctx, count)
	if err != nil {
		return err
	}
	want := ts.ReadFile(args[1])
	for _, m := range mail {
		if !strings.HasSuffix(m, want) {
			return fmt.Errorf("a delivered message does not end like %s:\n%s", args[1], m)
		}
	}
	return nil
}

func fakeGot(s *stage, ts *testscript.TestScript, args []string) error {
	if err := atLeast(1, args, "got COUNT [FILE]"); err != nil {
		return err
	}
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return usage("got COUNT [FILE]")
	}
	messages, err := s.messages(count)
	if err != nil || len(args) == 1 {
		return err
	}
	if last := messages[len(messages)-1]; len(args) == 3 && last.Mail != " "+args[2] {
		return fmt.Errorf("the parameters of MAIL are %q, want %q", last.Mail, args[2])
	}
	if want := crlf(ts.ReadFile(args[1])); messages[len(messages)-1].Content != want {
		return fmt.Errorf("the origin got %q, want %q", messages[len(messages)-1].Content, want)
	}
	return nil
}

func fakeNothing(s *stage, _ *testscript.TestScript, _ []string) error {
	sessions, err := s.sessions(func(sessions []peer.Session) bool {
		for _, session := range sessions {
			if !session.Done {
				return false
			}
		}
		return true
	})
	for _, session := range sessions {
		if len(session.Messages) > 0 {
			return fmt.Errorf("the origin accepted %q", session.Messages)
		}
	}
	return err
}

func snapshot(s *stage, _ *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return usage("snapshot NAME")
	}
	return s.snapshot(args[0])
}

func same(s *stage, _ *testscript.TestScript, args []string) error {
	if len(args) != 1 {
		return usage("same NAME")
	}
	return s.same(args[0])
}

func foreign(s *stage, _ *testscript.TestScript, args []string) error {
	switch {
	case len(args) == 2 && args[0] == "attach":
		program, err := s.env.Gateway.AttachForeignTCX(args[1])
		if err == nil {
			s.foreign = append(s.foreign, program)
		}
		return err
	case len(args) == 1 && args[0] == "ran":
		return s.foreignRan()
	case len(args) == 2 && args[0] == "release":
		return s.releaseForeign(args[1])
	}
	return usage("foreign attach DEVICE | foreign ran | foreign release COUNT")
}

func meddle(s *stage, _ *testscript.TestScript, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "stop" && s.meddling != nil:
		err := s.meddling()
		s.meddling = nil
		return err
	case len(args) == 2 && s.meddling == nil:
		release, err := s.env.Gateway.Meddle(args[1], testenv.Meddling(args[0]))
		s.meddling = release
		return err
	}
	return usage("meddle ends|unmarks|redirects|sees DEVICE | meddle stop")
}

// crlf returns a file's text as it is on the wire.
func crlf(text string) string { return strings.ReplaceAll(text, "\n", "\r\n") }

// message makes a message from a file.
func message(ts *testscript.TestScript, file string) peer.Message {
	return peer.Message{From: "a@example.net", To: []string{"b@example.org"}, Content: crlf(ts.ReadFile(file))}
}

// printReply prints a reply for `stdout` to look at.
func printReply(w io.Writer, reply peer.Reply) {
	io.WriteString(w, strings.ReplaceAll(reply.Raw, "\r\n", "\n"))
}
