package agent_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"waxseal/agent"
	"waxseal/agent/restconf"
)

// ask sends what a path is for.
func (c curl) ask(t testing.TB, cert, path string, args ...string) answer {
	t.Helper()
	if !strings.Contains(path, "/operations/") {
		return c.run(t, cert, path, args...)
	}
	body := challengeText(nonce32(t), 12)
	if strings.HasSuffix(path, opLog) {
		body = logText("netequip_boot", "")
	}
	args = append(args, "--header", "Content-Type: "+yangData, "--data-binary", body)
	return c.run(t, cert, path, args...)
}

// refusals are how curl says that the server ended the session: in the TLS
// handshake, while sending or receiving, or at the first frame of HTTP/2.
var refusals = []int{16, 35, 55, 56, 92}

// getBy reads a path by HTTP/1.1 with a client of our own.
func (l *lab) getBy(cert *tls.Certificate, path string) error {
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: clientTLS(cert), DisableKeepAlives: true}}
	resp, err := c.Get("https://" + l.web + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// D-42 for RESTCONF: any path without a client certificate, with a foreign one,
// an expired one, or one of the owner's that is not a client's.
func TestEveryPathNeedsTheOwnersClientCertificate(t *testing.T) {
	chip := newSoftChip(t)
	l := newLab(t, chip)
	l.enroll(t)
	certs := l.refused(t)
	certs["verifier"] = l.owner.client(t)
	c := l.newCurl(t, certs)
	delete(certs, "verifier")
	const otherKey = "owner's, another key" // curl sees that itself
	if err := l.getBy(certs[otherKey], dataSupport); err == nil {
		t.Errorf("certificate %s: answered", otherKey)
	}
	delete(certs, otherKey)
	quotes := chip.quotes.Load()
	for name, cert := range certs {
		for _, path := range restconf.Paths() {
			if cert == nil {
				name = ""
			}
			if a := c.ask(t, name, path); !slices.Contains(refusals, a.exit) {
				t.Errorf("certificate %q: %s: curl ended with %d, status %d: want a refused handshake", name, path, a.exit, a.status)
			}
		}
	}
	if n := chip.quotes.Load() - quotes; n != 0 {
		t.Errorf("strangers got %d quotes", n)
	}
	if err := l.getBy(l.owner.client(t), dataSupport); err != nil {
		t.Errorf("owner's client: %v", err)
	}
	for _, path := range restconf.Paths() {
		want := 200
		if strings.Contains(path, ":tpm12-") {
			want = 501
		}
		if a := c.ask(t, "verifier", path); a.status != want {
			t.Errorf("owner's client: %s: status %d: want %d: %s", path, a.status, want, a.body)
		}
	}
}

func TestDeviceThatCannotAttestSaysWhy(t *testing.T) {
	noTPM := func(c *agent.Config) {
		c.Quoter, c.Recorder, c.IAK, c.IDevID, c.IAKCert, c.IDevIDCert = nil, nil, nil, nil, nil, nil
		c.Unattested = "no TPM"
	}
	for name, test := range map[string]struct {
		change    func(*agent.Config)
		challenge string // what the error says; empty: the enrollment is what is missing
		log       string
		tpms      string
	}{
		"not enrolled":    {func(*agent.Config) {}, "not enrolled", "", `"status":"operational","certificates":{"certificate":[{"name":"iak",`},
		"boot incomplete": {func(c *agent.Config) { c.Unattested = "boot incomplete" }, "UNATTESTED(boot incomplete)", "UNATTESTED(boot incomplete)", `"status":"non-operational"`},
		"no TPM":          {noTPM, "UNATTESTED(no TPM)", "UNATTESTED(no TPM)", `{"tpms":{},"attester-supported-algos":{}}`},
	} {
		chip := newSoftChip(t)
		l := newLab(t, chip, test.change)
		c := l.ofOwner(t)
		const anyServer = "--insecure" // there is no certificate of the owner yet
		a := c.post(t, opChallenge, challengeText(nonce32(t), 12), anyServer)
		if a.status != 412 || !strings.Contains(string(a.body), test.challenge) || !strings.Contains(string(a.body), `"operation-failed"`) {
			t.Errorf("%s: challenge: status %d: %s", name, a.status, a.body)
		}
		if n := chip.quotes.Load(); n != 0 {
			t.Errorf("%s: %d quotes", name, n)
		}
		a = c.post(t, opLog, logText("netequip_boot", ""), anyServer)
		if want := map[bool]int{true: 200, false: 412}[test.log == ""]; a.status != want || !strings.Contains(string(a.body), test.log) {
			t.Errorf("%s: log: status %d: %s", name, a.status, a.body)
		}
		a = c.run(t, "verifier", dataSupport, anyServer)
		if a.status != 200 || !strings.Contains(string(a.body), test.tpms) {
			t.Errorf("%s: data: status %d: %s", name, a.status, a.body)
		}
		newYanglint(t, a.body).must(t, "data", a.body)
	}
}

func TestWithoutOwnerRESTCONFTellsNothing(t *testing.T) {
	l := newLab(t, newSoftChip(t), func(c *agent.Config) { c.OwnerCA = nil })
	c := l.ofOwner(t)
	for _, cert := range []string{"", "verifier"} {
		for _, path := range append(restconf.Paths(), "/", "/other", "*") {
			args := []string{"--insecure"}
			if path == "*" {
				path, args = "/", append(args, "--http1.1", "--request", "OPTIONS", "--request-target", "*")
			}
			a := c.ask(t, cert, path, args...)
			if a.status != 403 || !strings.Contains(string(a.body), `"access-denied"`) || !strings.Contains(string(a.body), "owner-ca.pem") {
				t.Errorf("%s: status %d: %s", path, a.status, a.body)
			}
		}
	}
}

// Challenges by gRPC and by RESTCONF count against one rate.
func TestChallengesOfAllKindsAreOneRate(t *testing.T) {
	l := newLab(t, newSoftChip(t), func(c *agent.Config) { c.Limits.AttestRate = 0.001 })
	conn := l.enroll(t)
	c := l.ofOwner(t)
	if _, err := conn.Attestz().Attest(t.Context(), newRequest(t)); err != nil {
		t.Fatal(err)
	}
	a := c.post(t, opChallenge, challengeText(nonce32(t), 12))
	if a.status != 409 || !strings.Contains(string(a.body), `"resource-denied"`) || !strings.Contains(a.headers, "etry-") {
		t.Errorf("status %d: %s\n%s", a.status, a.headers, a.body)
	}
	if a := c.post(t, opLog, logText("bios", "")); a.status != 200 {
		t.Errorf("the log: status %d: %s", a.status, a.body)
	}
}

// A rotation counts from the next handshake on, for RESTCONF as for gRPC.
func TestRESTCONFShowsTheCertificateInUse(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	c := l.ofOwner(t)
	if a := c.run(t, "verifier", dataSupport); a.exit == 0 {
		t.Error("before enrollment curl takes the maker's certificate for the owner's")
	}
	l.enroll(t)
	if a := c.run(t, "verifier", dataSupport); a.status != 200 {
		t.Errorf("after enrollment curl ended with %d, status %d", a.exit, a.status)
	}
}

func TestOlderTLSIsRefusedForRESTCONF(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	l.enroll(t)
	c := l.ofOwner(t)
	if a := c.run(t, "verifier", dataSupport, "--tls-max", "1.2"); !slices.Contains(refusals, a.exit) {
		t.Errorf("TLS 1.2: curl ended with %d, status %d", a.exit, a.status)
	}
	if a := c.run(t, "verifier", dataSupport, "--tlsv1.3"); a.status != 200 {
		t.Errorf("TLS 1.3: curl ended with %d, status %d", a.exit, a.status)
	}
}

// A client's certificate is looked at when a connection begins, so an old
// connection ends.
func TestOldConnectionsOfRESTCONFEnd(t *testing.T) {
	l := newLab(t, newSoftChip(t), func(c *agent.Config) { c.Limits.Age = 100 * time.Microsecond })
	l.enroll(t)
	c := l.ofOwner(t)
	if a := c.run(t, "verifier", dataSupport, "--http1.1"); a.status != 200 || !strings.Contains(a.headers, "Connection: close") {
		t.Errorf("status %d: %s", a.status, a.headers)
	}
}

// The agent serves both, and goes on with gRPC where something else of the
// router has the port of RESTCONF.
func TestAgentServesRESTCONFBesideGRPC(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, test := range map[string]struct {
		address string
		served  bool
	}{
		"free port":   {freeAddress(t), true},
		"taken port":  {taken.Addr().String(), false},
		"not wanted":  {"", false},
		"not usable":  {"256.0.0.1:1", false},
		"not written": {"nonsense", false},
	} {
		l := newLab(t, newSoftChip(t))
		l.stop()
		l.config.Listen, l.config.RESTCONF = freeAddress(t), test.address
		l.addr, l.web = l.config.Listen, test.address
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- agent.Run(ctx, l.config) }()
		conn := l.dial(t, l.owner.client(t))
		wait, stop := context.WithTimeout(t.Context(), 20*time.Second)
		for {
			if _, err = conn.Enrollz().CardID(wait, active); err == nil || wait.Err() != nil {
				break
			}
		}
		stop()
		if err != nil {
			t.Errorf("%s: gRPC: %v", name, err)
		}
		if test.served {
			if err := l.getBy(l.owner.client(t), dataSupport); err != nil {
				t.Errorf("%s: RESTCONF: %v", name, err)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// freeAddress returns an address that nobody listens on.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
