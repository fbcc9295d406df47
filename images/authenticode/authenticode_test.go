package authenticode_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"waxseal/boot/uki"
	"waxseal/images/authenticode"
	"waxseal/measure"
)

// executable is a PE32+ file of one section and tail bytes behind it.
func executable(section, tail []byte) []byte {
	const headers, pe, optional = 0x200, 0x40, 112 + 16*8
	b := make([]byte, headers)
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[0x3c:], pe)
	copy(b[pe:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[pe+4:], 0x8664)
	binary.LittleEndian.PutUint16(b[pe+6:], 1)
	binary.LittleEndian.PutUint16(b[pe+20:], optional)
	o := b[pe+24:]
	binary.LittleEndian.PutUint16(o, 0x20b)
	binary.LittleEndian.PutUint32(o[60:], headers)
	binary.LittleEndian.PutUint32(o[108:], 16)
	s := o[optional:]
	copy(s, ".text")
	binary.LittleEndian.PutUint32(s[8:], uint32(len(section)))
	binary.LittleEndian.PutUint32(s[16:], uint32(len(section)))
	binary.LittleEndian.PutUint32(s[20:], headers)
	return append(append(b, section...), tail...)
}

const (
	checksumAt = 0x40 + 24 + 64
	entryAt    = 0x40 + 24 + 112 + 4*8
)

func digest(t *testing.T, pe []byte) string {
	t.Helper()
	d, err := authenticode.Of(pe, measure.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(d.Sum)
}

func TestDigestIsOfAllBytesButChecksumAndCertificates(t *testing.T) {
	pe := executable([]byte("sixteen bytes..."), []byte("tail"))
	covered := bytes.Clone(pe[:checksumAt])
	covered = append(covered, pe[checksumAt+4:entryAt]...)
	covered = append(covered, pe[entryAt+8:]...)
	want := hex.EncodeToString(measure.Hash(measure.SHA256, covered).Sum)
	if got := digest(t, pe); got != want {
		t.Errorf("digest %s: want %s", got, want)
	}
}

// Each byte of the file is either covered (the digest changes or the file is
// refused) or one of those that are known not to be.
func TestEachByteIsCoveredOrKnownNotToBe(t *testing.T) {
	pe := executable([]byte("sixteen bytes..."), []byte("tail"))
	want := digest(t, pe)
	for i := range pe {
		changed := bytes.Clone(pe)
		changed[i] ^= 1
		d, err := authenticode.Of(changed, measure.SHA256)
		same := err == nil && hex.EncodeToString(d.Sum) == want
		exempt := i >= checksumAt && i < checksumAt+4 || i >= entryAt && i < entryAt+4 // an offset of no certificates
		if same != exempt {
			t.Errorf("byte %#x: digest unchanged is %v: want %v", i, same, exempt)
		}
	}
}

func TestSignatureLeavesTheDigestAsItWas(t *testing.T) {
	pe := executable([]byte("sixteen bytes..."), nil)
	want := digest(t, pe)
	signed := append(bytes.Clone(pe), make([]byte, 16)...)
	binary.LittleEndian.PutUint32(signed[entryAt:], uint32(len(pe)))
	binary.LittleEndian.PutUint32(signed[entryAt+4:], 16)
	if got := digest(t, signed); got != want {
		t.Errorf("digest of the signed file %s: want %s", got, want)
	}
	if _, err := authenticode.Of(append(signed, 0), measure.SHA256); !errors.Is(err, authenticode.ErrFormat) {
		t.Errorf("bytes after the certificate table: error is %v", err)
	}
}

func TestDigestRefusesWhatItCannotBeSureOf(t *testing.T) {
	pe := executable([]byte("sixteen bytes..."), nil)
	for name, change := range map[string]func(b []byte) []byte{
		"empty":                     func(b []byte) []byte { return nil },
		"cut in the section":        func(b []byte) []byte { return b[:len(b)-1] },
		"cut in the headers":        func(b []byte) []byte { return b[:0x100] },
		"headers beyond the file":   func(b []byte) []byte { b[0x40+24+60+3] = 0xff; return b },
		"certificates in a section": func(b []byte) []byte { b[entryAt], b[entryAt+1], b[entryAt+4] = 8, 2, 8; return b },
	} {
		if d, err := authenticode.Of(change(bytes.Clone(pe)), measure.SHA256); !errors.Is(err, authenticode.ErrFormat) {
			t.Errorf("%s: digest %v, error %v", name, d, err)
		}
	}
	if _, err := authenticode.Of(pe, measure.SHA1); !errors.Is(err, authenticode.ErrFormat) {
		t.Errorf("SHA-1: error is %v", err)
	}
}

const systemdBoot = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi"

// A stranger's program signs a real boot loader and says which digest it found.
func TestDigestAgreesWithOsslsigncode(t *testing.T) {
	need(t, "/usr/bin/osslsigncode", systemdBoot)
	pe, err := os.ReadFile(systemdBoot)
	if err != nil {
		t.Fatal(err)
	}
	pe = append(pe, make([]byte, -len(pe)&7)...) // signing tools pad
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.efi"), filepath.Join(dir, "out.efi")
	if err := os.WriteFile(in, pe, 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key := signer(t, dir)
	run(t, "osslsigncode", "sign", "-h", "sha256", "-certs", cert, "-key", key, "-in", in, "-out", out)
	report := run(t, "osslsigncode", "verify", "-CAfile", cert, "-in", out)
	m := regexp.MustCompile(`Calculated message digest\s*: ([0-9A-F]{64})`).FindStringSubmatch(report)
	if m == nil {
		t.Fatalf("no digest in osslsigncode's report:\n%s", report)
	}
	want := strings.ToLower(m[1])
	if got := digest(t, pe); got != want {
		t.Errorf("unsigned: digest %s: osslsigncode says %s", got, want)
	}
	signed, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if got := digest(t, signed); got != want {
		t.Errorf("signed: digest %s: osslsigncode says %s", got, want)
	}
}

func need(t *testing.T, files ...string) {
	t.Helper()
	for _, f := range files {
		if _, err := os.Stat(f); err != nil {
			t.Skipf("needs %s: run scripts/setup", f)
		}
	}
}

// run runs a program. verify ends with 1 where it does not like the chain of
// the certificate, which is not what is tested.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil && args[0] != "verify" {
		t.Fatalf("%s %s: %v\n%s", name, args[0], err, out)
	}
	return string(out)
}

func signer(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	pk, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for f, b := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pk}} {
		if err := os.WriteFile(f, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// FuzzDigest: no panic, and a digest only for what is a PE image.
func FuzzDigest(f *testing.F) {
	f.Add(executable([]byte("sixteen bytes..."), []byte("tail")))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := authenticode.Of(b, measure.SHA256)
		if _, perr := uki.Parse(bytes.NewReader(b), int64(len(b))); perr != nil && err == nil {
			t.Errorf("digest of what is no PE image: %v", perr)
		}
	})
}
