package tpm_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"waxseal/hw/tpm"
	"waxseal/hw/tpm/tpmtest"
	"waxseal/measure"
)

// interposer sits between CPU and TPM.
type interposer struct {
	transport.TPMCloser
	command  func(code tpm2.TPMCC, cmd []byte)        // may alter what goes in
	response func(code tpm2.TPMCC, rsp []byte) []byte // may alter what comes out
}

func (i *interposer) Send(cmd []byte) ([]byte, error) {
	code := tpm2.TPMCC(binary.BigEndian.Uint32(cmd[6:]))
	if i.command != nil {
		i.command(code, cmd)
	}
	rsp, err := i.TPMCloser.Send(cmd)
	if err == nil && i.response != nil {
		rsp = i.response(code, rsp)
	}
	return rsp, err
}

// interposed returns a provisioned TPM and who sits before it.
func interposed(t *testing.T) (*tpm.Device, *interposer) {
	t.Helper()
	p := tpmtest.Run(t, t.TempDir())
	d := tpmtest.Open(t, p)
	if err := d.CreateKey(t.Context(), tpm.IAK); err != nil {
		t.Fatal(err)
	}
	raw, err := linuxudstpm.Open(p.Socket())
	if err != nil {
		t.Fatal(err)
	}
	i := &interposer{TPMCloser: raw}
	behind, err := tpm.New(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = behind.Close() }) // the script of the test may have broken it
	return behind, i
}

func TestNoFlippedBitOfAQuoteGetsThrough(t *testing.T) {
	d, i := interposed(t)
	nonce, pcrs := bytes.Repeat([]byte{9}, 32), []measure.PCR{0, 12, 15}
	var answer []byte
	i.response = func(code tpm2.TPMCC, rsp []byte) []byte {
		if code == tpm2.TPMCCQuote {
			answer = slices.Clone(rsp)
		}
		return rsp
	}
	attest, sig, err := d.Quote(t.Context(), tpm.IAK, nonce, measure.SHA384, pcrs)
	if err != nil {
		t.Fatal(err)
	}
	flip := 0
	i.response = func(code tpm2.TPMCC, rsp []byte) []byte {
		if code != tpm2.TPMCCQuote {
			return rsp
		}
		bad := slices.Clone(answer)
		bad[flip/8] ^= 1 << (flip % 8)
		return bad
	}
	for ; flip < 8*len(answer); flip++ {
		a, s, err := d.Quote(t.Context(), tpm.IAK, nonce, measure.SHA384, pcrs)
		if err == nil && (!bytes.Equal(a, attest) || !bytes.Equal(s, sig)) {
			t.Errorf("bit %d of byte %d of %d: another quote is returned", flip%8, flip/8, len(answer))
		}
	}
}

// alterExtend makes the interposer flip a bit of the digest in each extend.
func alterExtend(code tpm2.TPMCC, cmd []byte) {
	if code == tpm2.TPMCCPCRExtend {
		cmd[len(cmd)-1] ^= 1
	}
}

func TestSaltedSessionStopsAnInterposer(t *testing.T) {
	d, i := interposed(t)
	if err := d.StartSalted(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := read(t, d, 12)
	i.command = alterExtend
	if err := extend(t.Context(), d); err == nil {
		t.Error("an altered extend is accepted")
	}
	i.command = nil
	if after := read(t, d, 12); !slices.EqualFunc(before, after, measure.Digest.Equal) {
		t.Error("an altered extend took effect")
	}
	if err := extend(t.Context(), d); err != nil {
		t.Errorf("the session does not recover: %v", err)
	}
	for name, code := range map[string]tpm2.TPMCC{"read": tpm2.TPMCCPCRRead, "extend": tpm2.TPMCCPCRExtend} {
		i.response = func(c tpm2.TPMCC, rsp []byte) []byte {
			if c == code {
				rsp[len(rsp)-1] ^= 1
			}
			return rsp
		}
		if _, err := d.ReadPCR(t.Context(), 12); code == tpm2.TPMCCPCRRead && err == nil {
			t.Errorf("a forged %s is believed", name)
		}
		if err := extend(t.Context(), d); code == tpm2.TPMCCPCRExtend && err == nil {
			t.Errorf("a forged answer to an %s is believed", name)
		}
	}
}

// The check above has something to find: without a session it goes unseen.
func TestWithoutSessionAnInterposerGoesUnseen(t *testing.T) {
	d, i := interposed(t)
	i.command = alterExtend
	want := read(t, d, 12)
	if err := extend(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	for n, digest := range (measure.Record{PCR: 12, Name: "kernel/file/a"}).Digests(d.Banks()) {
		var err error
		if want[n], err = measure.Extend(want[n], digest); err != nil {
			t.Fatal(err)
		}
	}
	if slices.EqualFunc(want, read(t, d, 12), measure.Digest.Equal) {
		t.Error("the interposer altered nothing: the test above proves nothing")
	}
}

func TestSaltedSessionNeverFallsBack(t *testing.T) {
	d, i := interposed(t)
	if err := d.StartSalted(t.Context()); err != nil {
		t.Fatal(err)
	}
	i.response = func(code tpm2.TPMCC, rsp []byte) []byte {
		if code == tpm2.TPMCCPCRExtend || code == tpm2.TPMCCStartAuthSession {
			return respond(0x8001, tpm2.TPMRCSessionMemory)
		}
		return rsp
	}
	before := 0
	i.command = func(code tpm2.TPMCC, cmd []byte) {
		if code == tpm2.TPMCCPCRExtend && binary.BigEndian.Uint32(cmd[18:]) == uint32(tpm2.TPMRSPW) {
			before++
		}
	}
	for range 3 {
		if err := extend(t.Context(), d); err == nil {
			t.Error("an extend without its session succeeds")
		}
	}
	if before != 0 {
		t.Errorf("%d extends went out with a password", before)
	}
}
