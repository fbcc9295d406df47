package agent_test

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// curl is a client of RESTCONF that nobody here wrote.
type curl struct {
	dir string
	lab *lab
}

// newCurl returns curl with files for these certificates, of which each call
// takes one.
func (l *lab) newCurl(t testing.TB, certs map[string]*tls.Certificate) curl {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("needs curl: run scripts/setup")
	}
	c := curl{t.TempDir(), l}
	c.keep(t, "owner-ca.pem", l.owner.pem())
	for name, cert := range certs {
		if cert == nil {
			continue
		}
		der, err := x509.MarshalECPrivateKey(cert.PrivateKey.(*ecdsa.PrivateKey))
		if err != nil {
			t.Fatal(err)
		}
		c.keep(t, name+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}))
		c.keep(t, name+".key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
	}
	return c
}

// ofOwner returns curl with the certificate of the owner's verifier.
func (l *lab) ofOwner(t testing.TB) curl {
	t.Helper()
	return l.newCurl(t, map[string]*tls.Certificate{"verifier": l.owner.client(t)})
}

func (c curl) path(name string) string { return filepath.Join(c.dir, name) }

func (c curl) keep(t testing.TB, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(c.path(name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// answer is what curl has got.
type answer struct {
	exit    int // of curl; 0: there was an answer
	status  int
	version string // of HTTP
	media   string
	headers string
	body    []byte
}

// run asks for a path. The router must show a certificate of the owner for its
// address.
func (c curl) run(t testing.TB, cert, path string, args ...string) answer {
	t.Helper()
	args = append([]string{
		"--silent", "--show-error", "--max-time", "60", "--path-as-is", "--cacert", c.path("owner-ca.pem"),
		"--output", c.path("body"), "--dump-header", c.path("headers"),
		"--write-out", "%{http_code} %{http_version} %{content_type}",
	}, args...)
	if cert != "" {
		args = append(args, "--cert", c.path(cert+".pem"), "--key", c.path(cert+".key"))
	}
	os.Remove(c.path("body"))
	os.Remove(c.path("headers"))
	cmd := exec.CommandContext(t.Context(), "curl", append(args, "https://"+c.lab.web+path)...)
	said, err := cmd.Output()
	a := answer{exit: cmd.ProcessState.ExitCode()}
	if err != nil {
		return a
	}
	code, rest, _ := strings.Cut(string(said), " ")
	a.version, a.media, _ = strings.Cut(rest, " ")
	if a.status, err = strconv.Atoi(code); err != nil {
		t.Fatalf("curl said %q", said)
	}
	a.body, _ = os.ReadFile(c.path("body")) // HEAD has none
	headers, err := os.ReadFile(c.path("headers"))
	if err != nil {
		t.Fatal(err)
	}
	a.headers = string(headers)
	return a
}

const yangData = "application/yang-data+json"

// post calls a remote procedure of RFC 9684 as the owner's verifier.
func (c curl) post(t testing.TB, operation, body string, args ...string) answer {
	t.Helper()
	c.keep(t, "request", []byte(body))
	args = append([]string{"--header", "Content-Type: " + yangData, "--data-binary", "@" + c.path("request")}, args...)
	return c.run(t, "verifier", "/restconf/operations/ietf-tpm-remote-attestation:"+operation, args...)
}

// get reads a resource as the owner's verifier.
func (c curl) get(t testing.TB, path string) []byte {
	t.Helper()
	a := c.run(t, "verifier", path)
	if a.status != 200 {
		t.Fatalf("GET %s: curl ended with %d, status %d: %s", path, a.exit, a.status, a.body)
	}
	return a.body
}
