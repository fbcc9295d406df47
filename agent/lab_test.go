package agent_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"waxseal/agent"
	"waxseal/agent/journal"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/evidence"
	"waxseal/measure/wire"
)

const serial = "WX-0001"

var (
	active = wire.Selection{Role: wire.Active}
	card   = wire.Card{Role: wire.Active, Serial: serial, Slot: "0", Maker: "QEMU", Part: "qemu-amd64", ChassisSerial: serial}
	asked  = []measure.PCR{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15}
)

// lab is one maker, one owner, a stranger and a router.
type lab struct {
	vendor, owner, stranger authority
	chip                    chip
	recorder                *measure.Recorder
	config                  agent.Config
	agent                   *agent.Agent
	addr                    string
	web                     string // the address of RESTCONF
	stop                    func() // ends the agent and waits for it
}

// newLab starts a router that has measured a boot, with an owner who has not
// enrolled it yet.
func newLab(t testing.TB, c chip, changes ...func(*agent.Config)) *lab {
	t.Helper()
	l := &lab{vendor: newAuthority(t, "maker"), owner: newAuthority(t, "owner"), stranger: newAuthority(t, "stranger"), chip: c}
	iak, idevid := c.keys(t)
	l.recorder = measured(t, c)
	l.config = agent.Config{
		Card:       card,
		Quoter:     c,
		Tokens:     c,
		Recorder:   l.recorder,
		IAK:        iak,
		IDevID:     idevid,
		IAKCert:    wire.ChainOf(l.vendor.device(t, iak)),
		IDevIDCert: wire.ChainOf(l.vendor.device(t, idevid.Public())),
		OwnerCA:    l.owner.pem(),
		State:      filepath.Join(t.TempDir(), "state"),
		Log:        slog.New(slog.NewTextHandler(testWriter{t}, nil)),
		Limits:     agent.Limits{DialRate: 1000, AttestRate: 1000, ProofRate: 1000},
	}
	for _, change := range changes {
		change(&l.config)
	}
	l.start(t)
	return l
}

// measured records a short boot.
func measured(t testing.TB, c chip) *measure.Recorder {
	t.Helper()
	j, err := journal.Open(filepath.Join(t.TempDir(), "run"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	r, err := measure.NewRecorder(t.Context(), c, j, measure.Waxseal1.PCRs())
	if err != nil {
		t.Fatal(err)
	}
	reset, restart := c.counters(t)
	start := fmt.Sprintf("phase/start/%d.%d", reset, restart)
	for _, name := range []string{start, "policy/measure", "kernel/uki/waxseal", "identity/serial"} {
		record(t, r, name)
	}
	for _, rec := range measure.Waxseal1.Cap(measure.Handoff + "switch_root") {
		if _, err := r.Record(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func record(t testing.TB, r *measure.Recorder, name string) {
	t.Helper()
	rec, err := measure.Waxseal1.Of(name, []byte(name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Record(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
}

// start starts the agent, again if it was stopped.
func (l *lab) start(t testing.TB) {
	t.Helper()
	a, err := agent.New(l.config)
	if err != nil {
		t.Fatal(err)
	}
	l.agent = a
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- a.Serve(ctx, listener) }()
	go func() { ended <- a.ServeRESTCONF(ctx, web) }()
	l.addr, l.web = listener.Addr().String(), web.Addr().String()
	l.stop = sync.OnceFunc(func() {
		cancel()
		for range cap(ended) {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(l.stop)
}

// dial connects with a client certificate, or without one. The router's
// certificate is not looked at; where it matters a test asks for it.
func (l *lab) dial(t testing.TB, cert *tls.Certificate) wire.Conn {
	t.Helper()
	return dial(t, l.addr, clientTLS(cert))
}

func clientTLS(cert *tls.Certificate) *tls.Config {
	c := &tls.Config{InsecureSkipVerify: true}
	if cert != nil {
		// A client that shows its certificate whatever the server names as its CAs.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return c
}

func dial(t testing.TB, addr string, config *tls.Config) wire.Conn {
	t.Helper()
	conn, err := wire.Dial(addr, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// enroll installs the owner's certificates and returns a connection of the
// owner on which the router shows them.
func (l *lab) enroll(t testing.TB) wire.Conn {
	t.Helper()
	client := l.owner.client(t)
	if err := l.dial(t, client).Enrollz().RotateOIAK(t.Context(), l.rotation(t)); err != nil {
		t.Fatal(err)
	}
	return l.dial(t, client)
}

// rotation returns new certificates of the owner for the router's keys.
func (l *lab) rotation(t testing.TB) wire.Rotation {
	t.Helper()
	iak, idevid := l.chip.keys(t)
	return wire.Rotation{Profile: "tls", Updates: []wire.Update{{
		Select:  active,
		OIAK:    wire.ChainOf(l.owner.device(t, iak)),
		OIDevID: wire.ChainOf(l.owner.device(t, idevid.Public())),
	}}}
}

func newRequest(t testing.TB) wire.AttestRequest {
	t.Helper()
	nonce := make([]byte, 32)
	if _, err := rand.Read(nonce); err != nil {
		t.Fatal(err)
	}
	return wire.AttestRequest{Select: active, Nonce: nonce, Bank: measure.SHA384, PCRs: asked}
}

// verify holds an answer against its request as a verifier does.
func (l *lab) verify(req wire.AttestRequest, ans wire.AttestAnswer) (evidence.Verified, error) {
	return evidence.Verify(evidence.Evidence{
		Nonce: req.Nonce, Bank: req.Bank, PCRs: ans.PCRs, Quoted: ans.Quoted, Signature: ans.Signature, Log: ans.Log,
		Certificates: evidence.Certificates{OIAK: ans.OIAK, TLS: wire.ChainOf(ans.Peer...)},
		Card:         evidence.Card{Serial: ans.Card.Serial},
		Received:     time.Now(),
	}, evidence.Challenge{
		Nonce: req.Nonce, Bank: req.Bank, PCRs: req.PCRs,
		Issued: time.Now().Add(-time.Minute), Deadline: time.Now().Add(time.Minute),
	}, evidence.Trust{Roots: []*x509.Certificate{l.owner.cert}, Serial: serial, Now: time.Now()})
}

// firmwareLog extends PCR 0 as a firmware does and returns its log.
func firmwareLog(t testing.TB, c chip) eventlog.Log {
	t.Helper()
	log := eventlog.Log{Banks: c.Banks()}
	for pcr := measure.PCR(0); pcr < 8; pcr++ {
		e := eventlog.Event{PCR: pcr, Type: eventlog.EVSeparator, Data: make([]byte, 4)}
		for _, b := range c.Banks() {
			e.Digests = append(e.Digests, measure.Hash(b, e.Data))
		}
		if err := c.Extend(t.Context(), pcr, e.Digests); err != nil {
			t.Fatal(err)
		}
		log.Events = append(log.Events, e)
	}
	return log
}

// eachChip runs a test with the TPM in memory and with swtpm.
func eachChip(t *testing.T, test func(t *testing.T, c chip)) {
	t.Run("soft", func(t *testing.T) { test(t, newSoftChip(t)) })
	t.Run("swtpm", func(t *testing.T) { test(t, realChip{tpmtest.Provisioned(t)}) })
}

// testWriter sends the agent's log to the test's.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	if testing.Verbose() {
		os.Stderr.Write(b)
	}
	return len(b), nil
}
