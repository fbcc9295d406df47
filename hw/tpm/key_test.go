package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure"
)

// The prefixes are those of "TPM 2.0 Keys for Device Identity and
// Attestation", section 7.3.6.
func TestAuthPolicyIsThePublishedOne(t *testing.T) {
	for _, c := range []struct {
		key    tpm.Key
		alg    measure.Alg
		prefix string
	}{
		{tpm.IDevID, measure.SHA384, "4db1aa83"},
		{tpm.IAK, measure.SHA384, "129d94eb"},
		{tpm.IDevID, measure.SHA256, "ad6b3a22"},
		{tpm.IAK, measure.SHA256, "54371823"},
	} {
		policy, err := tpm.AuthPolicy(c.key, c.alg)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(policy); !strings.HasPrefix(got, c.prefix) {
			t.Errorf("authPolicy of %s in %v is %s, want %s…", c.key, c.alg, got, c.prefix)
		}
	}
	if p, err := tpm.AuthPolicy(tpm.EK, measure.SHA384); err == nil {
		t.Errorf("EK has policy %x, want an error", p)
	}
}

func TestKeysAreMadeOnceAndSurviveReboot(t *testing.T) {
	state := t.TempDir()
	p := tpmtest.Run(t, state)
	d := tpmtest.Open(t, p)
	before := map[tpm.Key][]byte{}
	for _, k := range []tpm.Key{tpm.IAK, tpm.IDevID, tpm.EK} {
		for range 2 {
			if err := d.CreateKey(t.Context(), k); err != nil {
				t.Fatal(err)
			}
		}
		before[k] = publicArea(t, d, k)
	}
	if bytes.Equal(before[tpm.IAK], before[tpm.IDevID]) {
		t.Error("IAK and IDevID are one key")
	}
	if err := errors.Join(d.Shutdown(t.Context()), d.Close(), p.Stop()); err != nil {
		t.Fatal(err)
	}
	d = tpmtest.Open(t, tpmtest.Run(t, state))
	for k, want := range before {
		if got := publicArea(t, d, k); !bytes.Equal(got, want) {
			t.Errorf("%s changed over a reboot", k)
		}
	}
}

func publicArea(t *testing.T, d *tpm.Device, k tpm.Key) []byte {
	t.Helper()
	if k == tpm.EK {
		pub, area, err := d.EKPublic(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if pub.N.BitLen() != 2048 {
			t.Errorf("EK has %d bits", pub.N.BitLen())
		}
		return area
	}
	_, area, err := d.Public(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	return area
}

func TestIAKIsRestrictedAndIDevIDIsNot(t *testing.T) {
	d := tpmtest.Provisioned(t)
	for k, restricted := range map[tpm.Key]bool{tpm.IAK: true, tpm.IDevID: false} {
		pub, err := tpm2.Unmarshal[tpm2.TPMTPublic](publicArea(t, d, k))
		if err != nil {
			t.Fatal(err)
		}
		want := tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true,
			AdminWithPolicy: true, NoDA: true, SignEncrypt: true, Restricted: restricted,
		}
		if pub.ObjectAttributes != want {
			t.Errorf("%s has attributes %+v", k, pub.ObjectAttributes)
		}
		if pub.NameAlg != tpm2.TPMAlgSHA384 {
			t.Errorf("%s has nameAlg %v", k, pub.NameAlg)
		}
	}
}

func TestMissingKeyIsErrNoKey(t *testing.T) {
	d := tpmtest.Swtpm(t)
	if _, _, err := d.Public(t.Context(), tpm.IAK); !errors.Is(err, tpm.ErrNoKey) {
		t.Errorf("public: %v", err)
	}
	if _, _, err := d.Quote(t.Context(), tpm.IAK, make([]byte, 32), measure.SHA384, []measure.PCR{0}); !errors.Is(err, tpm.ErrNoKey) {
		t.Errorf("quote: %v", err)
	}
	if _, err := d.Signer(t.Context(), tpm.IDevID); !errors.Is(err, tpm.ErrNoKey) {
		t.Errorf("signer: %v", err)
	}
}

func TestSignerServesTLS13(t *testing.T) {
	d := tpmtest.Provisioned(t)
	key, err := d.Signer(t.Context(), tpm.IDevID)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, serverTemplate(), serverTemplate(), key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	a, b := net.Pipe()
	server := tls.Server(a, &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	})
	go func() { _ = server.Handshake() }() // the client's result tells
	client := tls.Client(b, &tls.Config{ServerName: "wx-0001", RootCAs: roots, MinVersion: tls.VersionTLS13})
	if err := client.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func serverTemplate() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "wx-0001"},
		DNSNames:     []string{"wx-0001"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
}

func TestSignerSignsSHA384Only(t *testing.T) {
	d := tpmtest.Provisioned(t)
	key, err := d.Signer(t.Context(), tpm.IDevID)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha512.Sum384([]byte("x"))
	sig, err := key.Sign(nil, digest[:], crypto.SHA384)
	if err != nil {
		t.Fatal(err)
	}
	pub := key.Public().(*ecdsa.PublicKey)
	if !ecdsa.VerifyASN1(pub, digest[:], sig) {
		t.Error("signature does not verify")
	}
	if _, err := key.Sign(nil, digest[:32], crypto.SHA256); err == nil {
		t.Error("a SHA-256 digest is signed")
	}
	if _, err := key.Sign(nil, digest[:32], crypto.SHA384); err == nil {
		t.Error("a short digest is signed")
	}
	if _, err := d.Signer(t.Context(), tpm.IAK); err == nil {
		t.Error("IAK signs what comes from outside")
	}
}
