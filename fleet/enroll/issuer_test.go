package enroll_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"waxseal/fleet/enroll"
	"waxseal/measure/evidence/evidencetest"
)

// TestMain lets the test's own program be the CA program of an owner.
func TestMain(m *testing.M) {
	if mode := os.Getenv("WAXSEAL_TEST_CA"); mode != "" {
		os.Exit(caProgram(mode))
	}
	os.Exit(m.Run())
}

// caProgram signs as its documentation says, or does what mode says.
func caProgram(mode string) int {
	switch mode {
	case "refuses":
		fmt.Fprintln(os.Stderr, strings.Repeat("some progress\n", 1000)+"this router is not\x1b[31m on the list")
		return 1
	case "sleeps":
		time.Sleep(time.Minute)
	case "floods":
		for {
			if _, err := os.Stdout.Write(make([]byte, 1<<16)); err != nil {
				return 1
			}
		}
	case "says nothing":
		return 0
	case "says no PEM":
		fmt.Println("yes")
		return 0
	}
	cert, err := signAsAsked(mode)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	out := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	os.Stdout.Write(out)
	if mode == "says it twice" {
		os.Stdout.Write(out)
	}
	return 0
}

func signAsAsked(mode string) ([]byte, error) {
	var r struct {
		Format, Kind, Serial, Host, URI string
		Subject                         struct {
			CommonName   string `json:"common_name"`
			SerialNumber string `json:"serial_number"`
		}
		PublicKey string `json:"public_key"`
		Uses      []string
		Days      int
	}
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &r); err != nil || r.Format != "waxseal-issue-1" {
		return nil, fmt.Errorf("format %q: %w", r.Format, err)
	}
	block, _ := pem.Decode([]byte(r.PublicKey))
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	now, err := strconv.ParseInt(os.Getenv("WAXSEAL_TEST_NOW"), 10, 64)
	if err != nil {
		return nil, err
	}
	uri, err := url.Parse(r.URI)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(42), Subject: pkix.Name{CommonName: r.Subject.CommonName, SerialNumber: r.Subject.SerialNumber},
		NotBefore: time.Unix(now, 0).Add(-time.Hour), NotAfter: time.Unix(now, 0).AddDate(0, 0, r.Days),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true, URIs: []*url.URL{uri},
	}
	for _, use := range r.Uses {
		oid, err := x509.ParseOID(use)
		if err != nil {
			return nil, err
		}
		if use == "1.3.6.1.5.5.7.3.1" {
			t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
			continue
		}
		t.UnknownExtKeyUsage = append(t.UnknownExtKeyUsage, toASN1(oid))
	}
	if ip := net.ParseIP(r.Host); ip != nil {
		t.IPAddresses = []net.IP{ip}
	} else if r.Host != "" {
		t.DNSNames = []string{r.Host}
	}
	if key, err = spoil(mode, t, key); err != nil {
		return nil, err
	}
	root, caKey, err := caFiles(os.Getenv("WAXSEAL_TEST_DIR"))
	if err != nil {
		return nil, err
	}
	if mode == "signs with another CA" {
		other, err := evidencetest.NewAuthority("owner", nil)
		if err != nil {
			return nil, err
		}
		root, caKey = other.Certificate, other.Key
	}
	return x509.CreateCertificate(rand.Reader, t, root, key, caKey)
}

// spoil changes one thing that the owner looks at.
func spoil(mode string, t *x509.Certificate, key any) (any, error) {
	switch mode {
	case "signs another key":
		other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		return other.Public(), err
	case "signs for another router":
		t.Subject.SerialNumber = "WX-0002"
	case "names another router":
		t.URIs[0].Opaque = "serial:WX-0002"
	case "names another host":
		t.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 9)}
	case "signs a CA":
		t.IsCA = true
	case "signs for any use":
		t.ExtKeyUsage, t.UnknownExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, nil
	case "signs a client":
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	case "signs for yesterday":
		t.NotAfter = t.NotBefore.Add(time.Minute)
	}
	return key, nil
}

func toASN1(oid x509.OID) []int {
	var out []int
	for _, part := range strings.Split(oid.String(), ".") {
		n, _ := strconv.Atoi(part) // an OID holds numbers
		out = append(out, n)
	}
	return out
}

func caFiles(dir string) (*x509.Certificate, any, error) {
	roots, err := enroll.ReadCertificates(dir + "/" + enroll.CAFile)
	if err != nil {
		return nil, nil, err
	}
	text, err := os.ReadFile(dir + "/" + enroll.CAKeyFile)
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	return roots[0], key, err
}

// program is a CA program that does what mode says, for the owner of dir.
func program(t *testing.T, dir, mode string) enroll.ProgramCA {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("WAXSEAL_TEST_CA", mode)
	t.Setenv("WAXSEAL_TEST_DIR", dir)
	t.Setenv("WAXSEAL_TEST_NOW", strconv.FormatInt(noon().Unix(), 10))
	return enroll.ProgramCA{Path: self}
}

func TestFileCAKeepsContract(t *testing.T) {
	dir := owner(t)
	ca, err := enroll.OpenCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	ca.Now = noon
	testIssuer(t, dir, ca)
}

func TestProgramCAKeepsContract(t *testing.T) {
	dir := owner(t)
	testIssuer(t, dir, program(t, dir, "signs"))
}

// testIssuer is the contract of every owner's CA.
func testIssuer(t *testing.T, dir string, ca enroll.Issuer) {
	cred, err := enroll.OpenCredentials(dir)
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t, elliptic.P384())
	for _, r := range requests(key) {
		cert, err := ca.Issue(t.Context(), r)
		if err != nil {
			t.Fatalf("%s for %q: %v", r.Kind, r.Host, err)
		}
		if err := r.Check(cert, cred.Roots, noon()); err != nil {
			t.Errorf("%s for %q: %v", r.Kind, r.Host, err)
		}
		for name, other := range map[string]func(*enroll.Request){
			"key": func(r *enroll.Request) { r.Key = newKey(t, elliptic.P384()).Public() },
			"kind": func(r *enroll.Request) {
				r.Kind = map[enroll.Kind]enroll.Kind{enroll.OIAK: enroll.OIDevID, enroll.OIDevID: enroll.OIAK}[r.Kind]
			},
		} {
			q := r
			other(&q)
			if err := q.Check(cert, cred.Roots, noon()); !errors.Is(err, enroll.ErrIssued) {
				t.Errorf("%s passes as one of another %s: %v", r.Kind, name, err)
			}
		}
	}
	for _, bad := range []enroll.Request{{Kind: "CA", Serial: serial, Key: key.Public()}, {Kind: enroll.OIDevID, Serial: serial, Key: key.Public()}} {
		if cert, err := ca.Issue(t.Context(), bad); err == nil {
			t.Errorf("issued %s for %q: %v", bad.Kind, bad.Host, cert.Subject)
		}
	}
}

func requests(key *ecdsa.PrivateKey) []enroll.Request {
	subject := pkix.Name{CommonName: "router", SerialNumber: serial}
	return []enroll.Request{
		{Kind: enroll.OIAK, Subject: subject, Serial: serial, Key: key.Public()},
		{Kind: enroll.OIDevID, Subject: subject, Serial: serial, Key: key.Public(), Host: "127.0.0.1"},
		{Kind: enroll.OIDevID, Subject: subject, Serial: serial, Key: key.Public(), Host: "2001:db8::1"},
		{Kind: enroll.OIDevID, Subject: subject, Serial: serial, Key: key.Public(), Host: "router.example"},
	}
}

// What a program answers is not believed: nothing is installed that is not what
// was asked for.
func TestProgramThatAnswersWronglyEnrollsNobody(t *testing.T) {
	for mode, want := range map[string]error{
		"signs another key": enroll.ErrIssued, "signs for another router": enroll.ErrIssued, "names another router": enroll.ErrIssued,
		"names another host": enroll.ErrIssued, "signs a CA": enroll.ErrIssued, "signs for any use": enroll.ErrIssued,
		"signs a client": enroll.ErrIssued, "signs for yesterday": enroll.ErrIssued, "signs with another CA": enroll.ErrIssued,
		"says nothing": enroll.ErrIssued, "says no PEM": enroll.ErrIssued, "says it twice": enroll.ErrIssued,
		"refuses": nil, "floods": nil, "sleeps": context.DeadlineExceeded, "is not there": os.ErrNotExist,
	} {
		t.Run(mode, func(t *testing.T) {
			f := newFresh(t)
			ca := program(t, f.dir, mode)
			switch mode {
			case "sleeps":
				ca.Timeout = 300 * time.Millisecond
			case "is not there":
				ca.Path += "-not"
			}
			f.config.Issuer = ca
			_, err := enroll.Enroll(t.Context(), f.config)
			if err == nil || want != nil && !errors.Is(err, want) {
				t.Errorf("error is %v, want %v", err, want)
			}
			if mode == "refuses" && (!strings.Contains(err.Error(), "on the list") || strings.ContainsRune(err.Error(), '\x1b')) {
				t.Errorf("the program's words arrive as %q", err)
			}
			if n := len(f.Rotations()); n != 0 {
				t.Errorf("%d certificates were installed", n)
			}
		})
	}
}

func TestRouterIsEnrolledWithAProgramAsCA(t *testing.T) {
	f := newFresh(t)
	f.config.Issuer = program(t, f.dir, "signs")
	r, err := enroll.Enroll(t.Context(), f.config)
	if err != nil || !slices.Equal(r.OIDevID.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) {
		t.Fatalf("%v", err)
	}
}
