package wire

import (
	"context"
	"fmt"

	apb "github.com/openconfig/attestz/proto/tpm_attestz"
	"google.golang.org/grpc/metadata"
)

// Format is the form in which evidence is answered.
type Format int32

// The formats of attestz AttestationFormat. Raw is what a device answers
// unless another is asked for.
const (
	Raw Format = 0
	JWT Format = Format(apb.AttestResponse_ATTESTATION_FORMAT_EAT_JWT)
	CWT Format = Format(apb.AttestResponse_ATTESTATION_FORMAT_EAT_CWT)
)

// FormatKey is the key of the call's metadata by which a format is asked for.
// AttestRequest has no field for it, and a key that a device does not know
// changes nothing there: it answers raw.
const FormatKey = "waxseal-attestation-format"

// formatNames are the values under FormatKey: the names of attestz.
var formatNames = map[Format]string{Raw: "TPM_RAW", JWT: "EAT_JWT", CWT: "EAT_CWT"}

// String returns the name of the format.
func (f Format) String() string {
	if name, ok := formatNames[f]; ok {
		return name
	}
	return fmt.Sprintf("format %d", int32(f))
}

// askFor adds what asks for f to the metadata of a call.
func (f Format) askFor(ctx context.Context) context.Context {
	if f == Raw {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, FormatKey, f.String())
}

// formatAsked reads which format a call asks for.
func formatAsked(ctx context.Context) (Format, error) {
	asked := metadata.ValueFromIncomingContext(ctx, FormatKey)
	if len(asked) == 0 {
		return Raw, nil
	}
	for f, name := range formatNames {
		if len(asked) == 1 && asked[0] == name {
			return f, nil
		}
	}
	return Raw, fmt.Errorf("%w: metadata %s: need one of TPM_RAW, EAT_JWT, EAT_CWT, once", ErrInvalid, FormatKey)
}

// tokenProto is an answer whose evidence is a token. Fields 1 to 8 belong to
// the raw form and stay empty.
func (a AttestAnswer) tokenProto() *apb.AttestResponse {
	return &apb.AttestResponse{Format: apb.AttestResponse_AttestationFormat(a.Format), EatToken: a.Token}
}

// tokenOf reads an answer whose evidence is a token. An answer that says the
// same in two ways is refused: nobody is to choose which to believe.
func tokenOf(p *apb.AttestResponse, f Format) (AttestAnswer, error) {
	if len(p.GetEatToken()) == 0 {
		return AttestAnswer{}, fmt.Errorf("format %v without a token", f)
	}
	raw := p.GetControlCardId() != nil || len(p.GetPcrValues()) > 0 || len(p.GetQuoted()) > 0 || len(p.GetQuoteSignature()) > 0 ||
		p.GetOidevidCert() != "" || p.GetAttestationCert() != nil || len(p.GetEventlogBytes()) > 0 || oldOIAK(p) != ""
	if raw {
		return AttestAnswer{}, fmt.Errorf("format %v with fields of the raw form", f)
	}
	return AttestAnswer{Format: f, Token: p.GetEatToken()}, nil
}

// formatOf returns the format of an answer; one that names none is raw.
func formatOf(p *apb.AttestResponse) Format {
	if f := p.GetFormat(); f != apb.AttestResponse_ATTESTATION_FORMAT_TPM_RAW {
		return Format(f)
	}
	return Raw
}
