package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// Back-off between two attempts of a command that the TPM asked to repeat.
const (
	firstBackOff = 2 * time.Millisecond
	lastBackOff  = 250 * time.Millisecond
)

// headerSize is the size of a response header: tag, size, code (Part 1, section 18).
const headerSize = 10

// Tags of a response (Part 2, section 6.9). A TPM 1.2 answers every TPM 2.0
// command with the first one and code 0x1e, bad tag.
const (
	tagTPM12      = 0x00c4
	tagNoSessions = 0x8001
	tagSessions   = 0x8002
)

// bus is the transport as one job sees it: it obeys the job's deadline,
// repeats what the TPM asks to repeat and checks each answer's header.
type bus struct {
	d    *Device
	ctx  context.Context
	last uint32 // code of the last command that did not just clean up, for errors
}

// Send implements transport.TPM. The TPM changes nothing when it answers with
// one of the codes of again, so the same bytes are sent again, also inside a
// session (Part 2, section 6.6.3, warnings).
func (b *bus) Send(cmd []byte) ([]byte, error) {
	if len(cmd) < headerSize {
		return nil, fmt.Errorf("command of %d bytes", len(cmd))
	}
	code := binary.BigEndian.Uint32(cmd[6:])
	cleanUp := code == uint32(tpm2.TPMCCFlushContext)
	if !cleanUp || b.last == 0 {
		b.last = code
	}
	for wait := firstBackOff; ; wait = min(2*wait, lastBackOff) {
		// A late caller's transient objects are flushed all the same.
		if err := b.ctx.Err(); err != nil && !cleanUp {
			return nil, timedOut(b.ctx)
		}
		rsp, err := b.exchange(code, cmd)
		if err != nil {
			return nil, err
		}
		if len(rsp) != 0 && !again(responseCode(rsp)) {
			return rsp, nil
		}
		if err := sleep(b.ctx, wait); err != nil {
			return nil, fmt.Errorf("the TPM kept asking to repeat (code 0x%03x): %w", responseCode(rsp), timedOut(b.ctx))
		}
	}
}

// exchange sends one command once. An empty answer is what go-tpm's file
// transport returns after a dozen TPM_RC_RETRY.
func (b *bus) exchange(code uint32, cmd []byte) ([]byte, error) {
	b.d.current.Store(&command{code, time.Now()})
	rsp, err := b.d.transport.Send(cmd)
	b.d.current.Store(nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	if len(rsp) == 0 {
		return nil, nil
	}
	return rsp, checkHeader(rsp)
}

func checkHeader(rsp []byte) error {
	if len(rsp) < headerSize {
		return fmt.Errorf("%w: %d bytes", ErrMalformed, len(rsp))
	}
	tag, size := binary.BigEndian.Uint16(rsp), binary.BigEndian.Uint32(rsp[2:])
	if tag == tagTPM12 {
		return ErrTPM12
	}
	if tag != tagNoSessions && tag != tagSessions {
		return fmt.Errorf("%w: tag 0x%04x", ErrMalformed, tag)
	}
	if int64(size) != int64(len(rsp)) {
		return fmt.Errorf("%w: %d bytes that claim to be %d", ErrMalformed, len(rsp), size)
	}
	return nil
}

func responseCode(rsp []byte) tpm2.TPMRC {
	if len(rsp) < headerSize {
		return tpm2.TPMRCRetry
	}
	return tpm2.TPMRC(binary.BigEndian.Uint32(rsp[6:]))
}

// again tells whether a command with this response code is to be sent again.
func again(rc tpm2.TPMRC) bool {
	switch rc {
	case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate, tpm2.TPMRCNVUnavailable:
		return true
	}
	return false
}

// explain names the command in an error of this job.
func (b *bus) explain(err error) error {
	if b.last == 0 {
		return err
	}
	var rc tpm2.TPMRC
	if !errors.As(err, &rc) && !known(err) {
		err = fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return fmt.Errorf("%s: %w", commandName(b.last), advice(err))
}

// known tells whether err already carries one of this package's errors.
func known(err error) bool {
	for _, e := range []error{ErrTPM12, ErrBanks, ErrNoAnswer, ErrGone, ErrMalformed, ErrNoKey, ErrOtherKey,
		ErrNoNV, ErrQuote, ErrGenerated, ErrCredential, ErrWrapped, context.Canceled} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

var commandNames = map[tpm2.TPMCC]string{
	tpm2.TPMCCStartup:            "TPM2_Startup",
	tpm2.TPMCCGetCapability:      "TPM2_GetCapability",
	tpm2.TPMCCPCRExtend:          "TPM2_PCR_Extend",
	tpm2.TPMCCPCRRead:            "TPM2_PCR_Read",
	tpm2.TPMCCQuote:              "TPM2_Quote",
	tpm2.TPMCCSign:               "TPM2_Sign",
	tpm2.TPMCCReadPublic:         "TPM2_ReadPublic",
	tpm2.TPMCCCreatePrimary:      "TPM2_CreatePrimary",
	tpm2.TPMCCEvictControl:       "TPM2_EvictControl",
	tpm2.TPMCCFlushContext:       "TPM2_FlushContext",
	tpm2.TPMCCStartAuthSession:   "TPM2_StartAuthSession",
	tpm2.TPMCCReadClock:          "TPM2_ReadClock",
	tpm2.TPMCCNVReadPublic:       "TPM2_NV_ReadPublic",
	tpm2.TPMCCNVRead:             "TPM2_NV_Read",
	tpm2.TPMCCNVWrite:            "TPM2_NV_Write",
	tpm2.TPMCCNVDefineSpace:      "TPM2_NV_DefineSpace",
	tpm2.TPMCCNVUndefineSpace:    "TPM2_NV_UndefineSpace",
	tpm2.TPMCCClear:              "TPM2_Clear",
	tpm2.TPMCCShutdown:           "TPM2_Shutdown",
	tpm2.TPMCCPolicySecret:       "TPM2_PolicySecret",
	tpm2.TPMCCPolicyOR:           "TPM2_PolicyOR",
	tpm2.TPMCCPolicyCommandCode:  "TPM2_PolicyCommandCode",
	tpm2.TPMCCActivateCredential: "TPM2_ActivateCredential",
	tpm2.TPMCCCertify:            "TPM2_Certify",
	tpm2.TPMCCImport:             "TPM2_Import",
	tpm2.TPMCCLoad:               "TPM2_Load",
	tpm2.TPMCCHash:               "TPM2_Hash",
	tpm2.TPMCCHashSequenceStart:  "TPM2_HashSequenceStart",
	tpm2.TPMCCSequenceUpdate:     "TPM2_SequenceUpdate",
	tpm2.TPMCCSequenceComplete:   "TPM2_SequenceComplete",
}

func commandName(code uint32) string {
	if name, ok := commandNames[tpm2.TPMCC(code)]; ok {
		return name
	}
	return fmt.Sprintf("TPM command 0x%08x", code)
}
