package restconf

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/go-json-experiment/json"

	"waxseal/measure"
	"waxseal/measure/wire"
)

// A body that is a challenge asks for something that a TPM may be asked; any
// other is refused as a document of ietf-restconf.
func FuzzChallenge(f *testing.F) {
	f.Add([]byte(good))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := parseChallenge(b)
		d := &desk{}
		w := post(newHandler(d), opChallenge, string(b))
		checkAnswer(t, w)
		if (err == nil) != (w.Code == http.StatusOK) || (err == nil) != (d.asked == 1) {
			t.Fatalf("parsed with %v, but status %d and %d quotes", err, w.Code, d.asked)
		}
		if err != nil {
			return
		}
		if len(q.Nonce) < wire.MinNonce || len(q.Nonce) > wire.MaxNonce || !q.Bank.Computable() || len(q.PCRs) == 0 {
			t.Fatalf("question %+v", q)
		}
		seen := map[measure.PCR]bool{}
		for _, pcr := range q.PCRs {
			if pcr >= measure.NumPCRs || seen[pcr] {
				t.Fatalf("PCRs %v", q.PCRs)
			}
			seen[pcr] = true
		}
	})
}

func FuzzLog(f *testing.F) {
	f.Add([]byte(`{"ietf-tpm-remote-attestation:input":{"log-type":"netequip_boot","log-selector":[{"last-index-number":"1","log-entry-quantity":2}]}}`))
	f.Add([]byte(`{"ietf-tpm-remote-attestation:input":{"log-type":"ietf-tpm-remote-attestation:bios","log-selector":[{"name":["tpm0"],"last-entry-value":"AAAAAA=="}]}}`))
	f.Add([]byte(`{"ietf-tpm-remote-attestation:input":{"log-type":"netequip_boot","log-selector":[{"timestamp":"2026-01-01T00:00:00Z"}]}}`))
	d := &desk{}
	d.record(5)
	h := newHandler(d)
	f.Fuzz(func(t *testing.T, b []byte) { checkAnswer(t, post(h, opLog, string(b))) })
}

func FuzzPath(f *testing.F) {
	for _, p := range Paths() {
		f.Add(p)
	}
	f.Add(data + "/" + charraNode + "/tpms/tpm=tpm0/tpm20-pcr-bank=ietf-tcg-algs%3ATPM_ALG_SHA256/pcr-index=7?content=all")
	h := newHandler(&desk{})
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || target[0] != '/' {
			return
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL = u
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Header().Get("Content-Type") == yangData {
			checkAnswer(t, w)
		}
	})
}

// checkAnswer asks that an answer is JSON, with an error unless it is good.
func checkAnswer(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	if bad := bytes.HasPrefix(w.Body.Bytes(), []byte(`{"ietf-restconf:errors":`)); bad != (w.Code != http.StatusOK) || w.Code == http.StatusInternalServerError {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
}
