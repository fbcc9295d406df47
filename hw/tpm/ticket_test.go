package tpm_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha512"
	"errors"
	"math/big"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure"
)

func TestRestrictedKeySignsDataOfAnySize(t *testing.T) {
	p := tpmtest.Run(t, t.TempDir())
	d := provision(t, tpmtest.Open(t, p))
	pub, _, err := d.Public(t.Context(), tpm.IAK)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{4, 5, 1023, 1024, 1025, 2048, 5000, tpm.MaxSignData} {
		data := bytes.Repeat([]byte("token."), size)[:size]
		sig, err := d.SignData(t.Context(), data)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		sum := sha512.Sum384(data)
		if len(sig) != 96 || !ecdsa.Verify(pub, sum[:], new(big.Int).SetBytes(sig[:48]), new(big.Int).SetBytes(sig[48:])) {
			t.Errorf("%d bytes: signature %x does not verify", size, sig)
		}
	}
	if n := tpmtest.Loaded(t, p); n != 0 {
		t.Errorf("%d objects are left in the TPM", n)
	}
}

func TestRestrictedKeyDoesNotSignWhatLooksLikeAQuote(t *testing.T) {
	p := tpmtest.Run(t, t.TempDir())
	d := provision(t, tpmtest.Open(t, p))
	quoted, _, err := d.Quote(t.Context(), tpm.IAK, make([]byte, 32), d.Banks()[0], []measure.PCR{0})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"a quote":              quoted,
		"the magic alone":      {0xff, 'T', 'C', 'G'},
		"the magic, then 2 kB": append([]byte{0xff, 'T', 'C', 'G'}, make([]byte, 2000)...),
	} {
		if sig, err := d.SignData(t.Context(), data); !errors.Is(err, tpm.ErrGenerated) || sig != nil {
			t.Errorf("%s: signed %x, %v", name, sig, err)
		}
		if err := tpm.SignDataForTest(t.Context(), d, data); !errors.Is(err, tpm2.TPMRCTicket) {
			t.Errorf("%s: the TPM itself answers %v, want: %v", name, err, tpm2.TPMRCTicket)
		}
	}
	if err := tpm.SignWithoutTicketForTest(t.Context(), d); !errors.Is(err, tpm2.TPMRCTicket) {
		t.Errorf("digest without a ticket: %v, want: %v", err, tpm2.TPMRCTicket)
	}
	if n := tpmtest.Loaded(t, p); n != 0 {
		t.Errorf("%d objects are left in the TPM", n)
	}
}

func TestDataOutOfBoundsIsNotSigned(t *testing.T) {
	d := tpmtest.Provisioned(t)
	for _, size := range []int{0, 3, tpm.MaxSignData + 1} {
		if _, err := d.SignData(t.Context(), make([]byte, size)); err == nil {
			t.Errorf("%d bytes are signed", size)
		}
	}
	bare := tpmtest.Swtpm(t)
	if _, err := bare.SignData(t.Context(), []byte("token")); !errors.Is(err, tpm.ErrNoKey) {
		t.Errorf("without an IAK: %v, want: %v", err, tpm.ErrNoKey)
	}
}

// A caller who leaves at whatever command leaves no hash sequence behind.
func TestCancelledSignatureLeavesTheTPMClean(t *testing.T) {
	p := tpmtest.Run(t, t.TempDir())
	provision(t, tpmtest.Open(t, p))
	conn, err := linuxudstpm.Open(p.Socket())
	if err != nil {
		t.Fatal(err)
	}
	l := &leaving{TPMCloser: conn, leave: func() {}}
	d, err := tpm.New(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	data := make([]byte, 5000)
	for after := 1; after < 10; after++ {
		ctx, cancel := context.WithCancel(t.Context())
		l.left, l.leave = after, cancel
		_, err := d.SignData(ctx, data)
		cancel()
		if _, err := d.Counters(t.Context()); err != nil { // waits until the TPM is left alone
			t.Fatal(err)
		}
		if n := tpmtest.Loaded(t, p); n != 0 {
			t.Errorf("cancelled after command %d (%v): %d objects are left in the TPM", after, err, n)
		}
	}
	if _, err := d.SignData(t.Context(), data); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Whoever alters on the bus what is hashed, the digest or the signature gets
// an error, not a signature.
func TestNoAlteredSignatureOfDataGetsThrough(t *testing.T) {
	d, i := interposed(t)
	data := make([]byte, 3000)
	for _, code := range []tpm2.TPMCC{tpm2.TPMCCSequenceUpdate, tpm2.TPMCCSequenceComplete, tpm2.TPMCCSign} {
		i.command = func(c tpm2.TPMCC, cmd []byte) {
			if c == code {
				cmd[len(cmd)-20] ^= 1
			}
		}
		if sig, err := d.SignData(t.Context(), data); err == nil {
			t.Errorf("command 0x%x altered: signed %x", uint32(code), sig)
		}
	}
	i.command = nil
	i.response = func(c tpm2.TPMCC, rsp []byte) []byte {
		if c == tpm2.TPMCCSign {
			rsp[len(rsp)-20] ^= 1
		}
		return rsp
	}
	if sig, err := d.SignData(t.Context(), data); !errors.Is(err, tpm.ErrQuote) {
		t.Errorf("signature altered: %x, %v, want: %v", sig, err, tpm.ErrQuote)
	}
}
