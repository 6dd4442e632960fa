package config

// The raw types are the file as it is written: a scalar is still whatever YAML
// made of it (nil when it is absent), so that parse.go can say in a sentence
// what is wrong with it. The tags are the keys; shape.go, the environment and
// the reference file's test walk these types, so a key exists exactly when it
// is a field here. One that is retired is read, warned of and not used: a file
// of an earlier release goes on to work.

// scalar is one value as YAML or the environment gave it: a string, a number,
// a bool, or nil when the key is absent.
type scalar = any

type rawConfig struct {
	Interfaces rawInterfaces `mapstructure:"interfaces"`
	Services   []rawService  `mapstructure:"services"`
	Zones      []rawZone     `mapstructure:"zones"`
	SMTP       rawSMTP       `mapstructure:"smtp"`
	TLS        rawTLS        `mapstructure:"tls"`
	Kernel     rawKernel     `mapstructure:"kernel"`
	Timeouts   rawTimeouts   `mapstructure:"timeouts"`
	Limits     rawLimits     `mapstructure:"limits"`
	Log        rawLog        `mapstructure:"log"`
	Metrics    rawMetrics    `mapstructure:"metrics"`
}

type rawInterfaces struct {
	Client []scalar `mapstructure:"client"`
	Origin []scalar `mapstructure:"origin"`
	Bypass []scalar `mapstructure:"bypass"`
}

type rawService struct {
	Name      scalar   `mapstructure:"name"`
	Listen    []scalar `mapstructure:"listen"`
	Intercept []scalar `mapstructure:"intercept"`
	Origins   []scalar `mapstructure:"origins"`
	Forge     rawForge `mapstructure:"forge"`
	Fail      scalar   `mapstructure:"fail"`
	SMTP      rawSMTP  `mapstructure:"smtp"`
	TLS       rawTLS   `mapstructure:"tls"`
}

type rawForge struct {
	Address scalar `mapstructure:"address"`
	Port    scalar `mapstructure:"port"`
	OnLink  scalar `mapstructure:"on_link"`
}

type rawZone struct {
	Name     scalar   `mapstructure:"name"`
	Networks []scalar `mapstructure:"networks"`
	Trust    []scalar `mapstructure:"trust"`
}

// rawSMTP stands at the top for all services and in each for itself: a list
// that is nil is as there, an empty one is none.
type rawSMTP struct {
	Extensions       rawExtensions `mapstructure:"extensions"`
	AuthInClear      scalar        `mapstructure:"auth_in_clear"`
	Mechanisms       []scalar      `mapstructure:"mechanisms"`
	Forward          []scalar      `mapstructure:"forward"`
	Commands         []rawCommand  `mapstructure:"commands"`
	BareAddress      scalar        `mapstructure:"bare_address"`
	AppendDomain     scalar        `mapstructure:"append_domain"`
	RefuseRoutes     scalar        `mapstructure:"refuse_routes"`
	RefusePercent    scalar        `mapstructure:"refuse_percent"`
	RefuseBang       scalar        `mapstructure:"refuse_bang"`
	StrictHELO       scalar        `mapstructure:"strict_helo"`
	StrictPipelining scalar        `mapstructure:"strict_pipelining"`
	Unoffered        scalar        `mapstructure:"unoffered_parameters"`
	EarlyTalkers     scalar        `mapstructure:"early_talkers"`
	BareNewlines     scalar        `mapstructure:"bare_newlines"`
	NUL              scalar        `mapstructure:"nul"`
	EightBit         scalar        `mapstructure:"eight_bit"`
	Received         scalar        `mapstructure:"received"`
	MalformedReplies scalar        `mapstructure:"malformed_replies"`
	ReplyID          scalar        `mapstructure:"reply_id"`
	Limits           rawSMTPLimits `mapstructure:"limits"`
}

type rawExtensions struct {
	Allow  []scalar `mapstructure:"allow"`
	Remove []scalar `mapstructure:"remove"`
}

type rawCommand struct {
	Name    scalar `mapstructure:"name"`
	Verdict scalar `mapstructure:"verdict"`
	Code    scalar `mapstructure:"code"`
	Text    scalar `mapstructure:"text"`
}

type rawSMTPLimits struct {
	Command    scalar `mapstructure:"command"`
	Parameter  scalar `mapstructure:"parameter"`
	AuthLine   scalar `mapstructure:"auth_line"`
	ReplyLine  scalar `mapstructure:"reply_line"`
	ReplyLines scalar `mapstructure:"reply_lines"`
	Reply      scalar `mapstructure:"reply_size"`
	Line       scalar `mapstructure:"line"`
	Size       scalar `mapstructure:"size"`
	Drain      scalar `mapstructure:"drain"`
	Recipients scalar `mapstructure:"recipients"`
	Messages   scalar `mapstructure:"messages"`
	Idle       scalar `mapstructure:"idle"`
	TinyChunks scalar `mapstructure:"tiny_chunks"`
	Errors     scalar `mapstructure:"errors"`
	Rate       scalar `mapstructure:"rate"`
	Session    scalar `mapstructure:"session"`
}

// rawTLS stands at the top for all services and in each for itself, as rawSMTP
// does.
type rawTLS struct {
	Mode         scalar           `mapstructure:"mode"`
	Certificates []rawCertificate `mapstructure:"certificates"`
	Domains      []scalar         `mapstructure:"domains"`
	Client       rawTLSClient     `mapstructure:"client"`
	Origin       rawTLSOrigin     `mapstructure:"origin"`
}

type rawCertificate struct {
	Chain scalar `mapstructure:"chain"`
	Key   scalar `mapstructure:"key"`
}

type rawTLSClient struct {
	Require  scalar `mapstructure:"require"`
	Implicit scalar `mapstructure:"implicit"`
	Minimum  scalar `mapstructure:"minimum"`
	RSA      scalar `mapstructure:"rsa_key_exchange"`
	Verify   scalar `mapstructure:"verify"`
	CA       scalar `mapstructure:"ca"`
}

type rawTLSOrigin struct {
	Require  scalar   `mapstructure:"require"`
	Implicit scalar   `mapstructure:"implicit"`
	Verify   scalar   `mapstructure:"verify"`
	Name     scalar   `mapstructure:"name"`
	CA       scalar   `mapstructure:"ca"`
	Pins     []scalar `mapstructure:"pins"`
	Resolver scalar   `mapstructure:"resolver"`
}

type rawKernel struct {
	BPFFS     scalar `mapstructure:"bpffs"`
	RunDir    scalar `mapstructure:"run_dir"`
	Datapath  scalar `mapstructure:"datapath"`
	Netfilter scalar `mapstructure:"netfilter"`

	ForwardRules scalar `mapstructure:"forward_rules"`

	ClientMark scalar `mapstructure:"client_mark"`
	OriginMark scalar `mapstructure:"origin_mark"`
	LoopMark   scalar `mapstructure:"loop_mark"`
	Table      scalar `mapstructure:"table"`
	LoopTable  scalar `mapstructure:"loop_table"`
	Priority   scalar `mapstructure:"priority"`
	Zone       scalar `mapstructure:"zone" retired:"client legs of transit are not tracked any more, so there is nothing to keep apart"`
	Heartbeat  scalar `mapstructure:"heartbeat"`
}

type rawTimeouts struct {
	Connect   scalar `mapstructure:"connect"`
	Greet     scalar `mapstructure:"greet"`
	Command   scalar `mapstructure:"command"`
	Reply     scalar `mapstructure:"reply"`
	Data      scalar `mapstructure:"data"`
	Block     scalar `mapstructure:"block"`
	End       scalar `mapstructure:"end"`
	Proxy     scalar `mapstructure:"proxy"`
	Handshake scalar `mapstructure:"handshake"`
	Drain     scalar `mapstructure:"drain"`
}

type rawLimits struct {
	Sessions scalar `mapstructure:"sessions"`
}

type rawLog struct {
	Format         scalar `mapstructure:"format"`
	SilentVisitors scalar `mapstructure:"silent_visitors"`
}

type rawMetrics struct {
	Listen scalar `mapstructure:"listen"`
}
