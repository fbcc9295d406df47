package evidence

import "errors"

// Why evidence is refused. Verify wraps exactly one of them, with the thing
// that it looked at.
var (
	ErrFormat      = errors.New("evidence is malformed")
	ErrChallenge   = errors.New("challenge cannot be judged")
	ErrLate        = errors.New("answer is outside the time of the challenge")
	ErrNonce       = errors.New("nonce is not the one of the challenge")
	ErrBatch       = errors.New("answer is not of the kind that was asked: batched or single")
	ErrBank        = errors.New("PCR bank is not the one asked")
	ErrAttest      = errors.New("quote is not a well-formed TPMS_ATTEST of a quote")
	ErrSelection   = errors.New("quoted PCR selection is not the one asked")
	ErrValues      = errors.New("PCR values are not those that were quoted")
	ErrScheme      = errors.New("signature scheme is not the one of the attestation key")
	ErrSignature   = errors.New("quote signature is not valid")
	ErrCertificate = errors.New("certificate is not acceptable")
	ErrChain       = errors.New("certificate does not lead to a trusted root")
	ErrExpired     = errors.New("certificate is not valid now")
	ErrWeakKey     = errors.New("key is too weak")
	ErrKey         = errors.New("attestation key is not the expected one")
	ErrSerial      = errors.New("serial number is not the expected one")
	ErrTrust       = errors.New("verifier has no trust to judge by")
	ErrLog         = errors.New("event log cannot be read")
	ErrReplay      = errors.New("event log does not explain the quoted PCRs")
	ErrWithheld    = errors.New("no event explains a PCR that was extended")
	ErrData        = errors.New("event data does not match its digest")
	ErrUnclean     = errors.New("unclean start")
	ErrPlace       = errors.New("record is in a PCR where its class does not belong")
	ErrCap         = errors.New("record after the cap of its PCR")
	ErrSeparator   = errors.New("separators of the firmware are not in order")
	ErrStart       = errors.New("log does not name the boot that was quoted")
	ErrCounters    = errors.New("counters of the TPM went back or changed without a reason")
	ErrContents    = errors.New("content does not match its digest")
)
