package restconf

import (
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"waxseal/agent/quote"
	"waxseal/measure"
	"waxseal/measure/wire"
)

// challengeInput is the input of tpm20-challenge-response-attestation.
type challengeInput struct {
	Input *struct {
		Challenge *struct {
			Nonce *binary        `json:"nonce-value"`
			Banks []pcrSelection `json:"tpm20-pcr-selection"`
			Names jsontext.Value `json:"certificate-name"`
		} `json:"tpm20-attestation-challenge"`
	} `json:"ietf-tpm-remote-attestation:input"`
}

type pcrSelection struct {
	Bank *string  `json:"tpm20-hash-algo"`
	PCRs []uint16 `json:"pcr-index"`
}

// challengeOutput is its output.
type challengeOutput struct {
	Output struct {
		Responses []quoteEntry `json:"tpm20-attestation-response"`
	} `json:"ietf-tpm-remote-attestation:output"`
}

type quoteEntry struct {
	Certificate string      `json:"certificate-name"`
	Quoted      []byte      `json:"quote-data"`      // bare TPMS_ATTEST, as it was signed
	Signature   []byte      `json:"quote-signature"` // TPMT_SIGNATURE
	Uptime      *uint32     `json:"up-time,omitempty"`
	Values      []pcrValues `json:"unsigned-pcr-values"`
}

type pcrValues struct {
	Bank   string     `json:"tpm20-hash-algo"`
	Values []pcrValue `json:"pcr-values"`
}

type pcrValue struct {
	PCR   measure.PCR `json:"pcr-index"`
	Value []byte      `json:"pcr-value"`
}

// challenge answers tpm20-challenge-response-attestation.
func (h *Handler) challenge(w http.ResponseWriter, r *http.Request) error {
	if err := h.config.Admit(r); err != nil {
		return err
	}
	b, err := body(r)
	if err != nil {
		return err
	}
	q, err := parseChallenge(b)
	if err != nil {
		return err
	}
	if err := h.config.Desk.Check(q.Bank); err != nil {
		return err
	}
	if len(h.config.OIAK()) == 0 {
		return fmt.Errorf("%w: not enrolled: no oIAK certificate installed", wire.ErrNotReady)
	}
	ans, err := h.config.Desk.Take(r.Context(), q)
	if err != nil {
		return err
	}
	return h.write(w, yangData, h.output(q.Bank, ans))
}

// parseChallenge returns the question that an input asks.
func parseChallenge(b []byte) (quote.Question, error) {
	var doc challengeInput
	if err := decode(b, &doc); err != nil {
		return quote.Question{}, err
	}
	switch {
	case doc.Input == nil:
		return quote.Question{}, missing(charra + ":input")
	case doc.Input.Challenge == nil:
		return quote.Question{}, missing("tpm20-attestation-challenge")
	case doc.Input.Challenge.Nonce == nil:
		return quote.Question{}, missing("nonce-value")
	case doc.Input.Challenge.Names != nil:
		return quote.Question{}, unknown("certificate-name: this device has one TPM: feature mtpm is off")
	}
	nonce := *doc.Input.Challenge.Nonce
	if n := len(nonce); n < wire.MinNonce || n > wire.MaxNonce {
		return quote.Question{}, invalid("nonce-value of %d bytes: need %d to %d; it is never padded or trimmed", n, wire.MinNonce, wire.MaxNonce)
	}
	bank, pcrs, err := parseSelection(doc.Input.Challenge.Banks)
	return quote.Question{Nonce: nonce, Bank: bank, PCRs: pcrs}, err
}

// parseSelection returns the one bank that is asked for and its PCRs. Without
// a name it is SHA-256, says the model.
func parseSelection(banks []pcrSelection) (measure.Alg, []measure.PCR, error) {
	switch {
	case len(banks) == 0:
		return 0, nil, missing("tpm20-pcr-selection")
	case len(banks) > 1:
		return 0, nil, unsupported("more than one tpm20-pcr-selection: ask for one bank at a time")
	case len(banks[0].PCRs) == 0:
		return 0, nil, missing("pcr-index")
	}
	bank := measure.SHA256
	if name := banks[0].Bank; name != nil {
		var err error
		if bank, err = bankOf(*name); err != nil {
			return 0, nil, err
		}
	}
	var pcrs []measure.PCR
	for _, n := range banks[0].PCRs {
		if n >= measure.NumPCRs || slices.Contains(pcrs, measure.PCR(n)) {
			return 0, nil, invalid("pcr-index %d is above %d or stands twice", n, measure.NumPCRs-1)
		}
		pcrs = append(pcrs, measure.PCR(n))
	}
	return bank, pcrs, nil
}

func (h *Handler) output(bank measure.Alg, ans quote.Answer) challengeOutput {
	values := pcrValues{Bank: algIdentity[bank]}
	for _, pcr := range slices.Sorted(maps.Keys(ans.PCRs)) {
		values.Values = append(values.Values, pcrValue{pcr, ans.PCRs[pcr]})
	}
	var out challengeOutput
	out.Output.Responses = []quoteEntry{{
		Certificate: nameOIAK, Quoted: ans.Quoted, Signature: ans.Signature,
		Uptime: h.uptime(), Values: []pcrValues{values},
	}}
	return out
}

// uptime is the leaf up-time, in seconds.
func (h *Handler) uptime() *uint32 {
	if h.config.Uptime == nil {
		return nil
	}
	s := uint32(min(h.config.Uptime().Seconds(), math.MaxUint32))
	return &s
}
