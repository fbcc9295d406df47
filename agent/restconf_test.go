package agent_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"waxseal/agent"
	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/wire"
)

const (
	opChallenge = "tpm20-challenge-response-attestation"
	opLog       = "log-retrieval"
	dataSupport = "/restconf/data/" + charra + ":rats-support-structures"
)

// challengeText is the input of a challenge for PCRs of SHA-384.
func challengeText(nonce []byte, pcrs ...measure.PCR) string {
	return fmt.Sprintf(`{"%s:input":{"tpm20-attestation-challenge":{"nonce-value":"%s","tpm20-pcr-selection":[{"tpm20-hash-algo":"ietf-tcg-algs:TPM_ALG_SHA384","pcr-index":%s}]}}}`,
		charra, base64.StdEncoding.EncodeToString(nonce), strings.Join(strings.Fields(fmt.Sprint(pcrs)), ","))
}

// logText is the input of a log-retrieval with this selector.
func logText(kind, selector string) string {
	if selector != "" {
		selector = `,"log-selector":[` + selector + `]`
	}
	return `{"` + charra + `:input":{"log-type":"` + kind + `"` + selector + `}}`
}

// quoted is what a client reads of the output of a challenge.
type quoted struct {
	Output struct {
		Responses []struct {
			Name      string  `json:"certificate-name"`
			Quoted    []byte  `json:"quote-data"`
			Signature []byte  `json:"quote-signature"`
			Uptime    *uint32 `json:"up-time"`
			Banks     []struct {
				Alg    string `json:"tpm20-hash-algo"`
				Values []struct {
					PCR   measure.PCR `json:"pcr-index"`
					Value []byte      `json:"pcr-value"`
				} `json:"pcr-values"`
			} `json:"unsigned-pcr-values"`
		} `json:"tpm20-attestation-response"`
	} `json:"ietf-tpm-remote-attestation:output"`
}

// logged is what a client reads of the output of a log-retrieval.
type logged struct {
	Output struct {
		Logs struct {
			Nodes []struct {
				Name   string  `json:"name"`
				Uptime *uint32 `json:"up-time"`
				Result struct {
					Boot struct {
						Entries []bootEntry `json:"boot-event-entry"`
					} `json:"boot-event-logs"`
					BIOS struct {
						Entries []biosEntry `json:"bios-event-entry"`
					} `json:"bios-event-logs"`
				} `json:"log-result"`
			} `json:"node-data"`
		} `json:"system-event-logs"`
	} `json:"ietf-tpm-remote-attestation:output"`
}

type bootEntry struct {
	Number       uint64      `json:"event-number,string"`
	Template     string      `json:"ima-template"`
	Name         string      `json:"filename-hint"`
	Content      []byte      `json:"filedata-hash"`
	ContentAlg   string      `json:"filedata-hash-algorithm"`
	TemplateAlg  string      `json:"template-hash-algorithm"`
	TemplateHash []byte      `json:"template-hash"`
	PCR          measure.PCR `json:"pcr-index"`
}

type biosEntry struct {
	Number  uint32      `json:"event-number"`
	Type    uint32      `json:"event-type"`
	PCR     measure.PCR `json:"pcr-index"`
	Digests []struct {
		Alg  string   `json:"hash-algo"`
		Sums [][]byte `json:"digest"`
	} `json:"digest-list"`
	Size uint32   `json:"event-size"`
	Data [][]byte `json:"event-data"`
}

func read[T any](t testing.TB, b []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(b, &v, json.RejectUnknownMembers(true)); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return v
}

// pages reads a log page by page, as a client with little memory does.
func (c curl) pages(t testing.TB, y yanglint, kind string, quantity int) (boot []bootEntry, bios []biosEntry) {
	t.Helper()
	for {
		last := fmt.Sprintf(`{"last-index-number":"%d","log-entry-quantity":%d}`, len(boot)+len(bios), quantity)
		text := logText(kind, last)
		a := c.post(t, opLog, text)
		if a.status != 200 {
			t.Fatalf("%s: status %d: %s", text, a.status, a.body)
		}
		y.must(t, "rpc", envelope(t, opLog, []byte(text)))
		y.must(t, "reply", envelope(t, opLog, a.body))
		nodes := read[logged](t, a.body).Output.Logs.Nodes
		if len(nodes) == 0 {
			return boot, bios
		}
		boot = append(boot, nodes[0].Result.Boot.Entries...)
		bios = append(bios, nodes[0].Result.BIOS.Entries...)
	}
}

// join makes of both logs the one that a verifier reads.
func join(t testing.TB, boot []bootEntry, bios []biosEntry) []byte {
	t.Helper()
	banks := []measure.Alg{measure.SHA256, measure.SHA384}
	log := eventlog.Log{Banks: banks}
	for i, e := range bios {
		event := eventlog.Event{PCR: e.PCR, Type: e.Type, Data: bytes.Join(e.Data, nil)}
		for k, d := range e.Digests {
			event.Digests = append(event.Digests, measure.Digest{Alg: banks[k], Sum: d.Sums[0]})
		}
		if int(e.Number) != i+1 || int(e.Size) != len(event.Data) {
			t.Errorf("entry %d has number %d and size %d for %d bytes", i, e.Number, e.Size, len(event.Data))
		}
		log.Events = append(log.Events, event)
	}
	for i, e := range boot {
		rec := measure.Record{PCR: e.PCR, Name: e.Name, Content: [32]byte(e.Content)}
		if int(e.Number) != i+1 || e.Template != "ima-ng" || e.ContentAlg != "sha256" || e.TemplateAlg != "sha384" ||
			!bytes.Equal(e.TemplateHash, measure.Hash(measure.SHA384, rec.Payload()).Sum) {
			t.Errorf("entry %d: %+v", i, e)
		}
		log.Events = append(log.Events, eventlog.Of(measure.Event{Record: rec, Digests: rec.Digests(banks)}))
	}
	b, err := eventlog.EncodeCEL(log)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What curl gets is enough for the verifier, and each document is of the YANG
// module.
func TestQuoteAndLogOverRESTCONFAreVerified(t *testing.T) {
	eachChip(t, func(t *testing.T, chip chip) {
		firmware := firmwareLog(t, chip)
		l := newLab(t, chip, func(c *agent.Config) {
			c.Firmware = firmware
			c.Uptime = func() time.Duration { return 90 * time.Second }
		})
		l.enroll(t)
		c := l.ofOwner(t)
		support := c.get(t, dataSupport)
		y := newYanglint(t, support)
		y.must(t, "data", support)

		req := newRequest(t)
		text := challengeText(req.Nonce, req.PCRs...)
		y.must(t, "rpc", envelope(t, opChallenge, []byte(text)))
		a := c.post(t, opChallenge, text)
		if a.status != 200 || a.media != yangData {
			t.Fatalf("status %d, %s: %s", a.status, a.media, a.body)
		}
		y.must(t, "reply", envelope(t, opChallenge, a.body))
		out := read[quoted](t, a.body).Output.Responses
		if len(out) != 1 || out[0].Name != "oiak" || *out[0].Uptime != 90 || len(out[0].Banks) != 1 || out[0].Banks[0].Alg != "ietf-tcg-algs:TPM_ALG_SHA384" {
			t.Fatalf("answer %s", a.body)
		}
		ans := wire.AttestAnswer{Card: card, PCRs: map[measure.PCR][]byte{}, Quoted: out[0].Quoted, Signature: out[0].Signature}
		for _, v := range out[0].Banks[0].Values {
			ans.PCRs[v.PCR] = v.Value
		}
		boot, _ := c.pages(t, y, "netequip_boot", 3)
		_, bios := c.pages(t, y, charra+":bios", 5)
		if len(boot) != 7 || len(bios) != 8 {
			t.Fatalf("%d and %d entries: want 7 and 8", len(boot), len(bios))
		}
		ans.Log = join(t, boot, bios)
		iak, _ := chip.keys(t)
		ans.OIAK = wire.ChainOf(l.owner.device(t, iak))
		if _, err := l.verify(req, ans); err != nil {
			t.Errorf("the verifier says: %v", err)
		}
		if err := c.checkquote(t, iak, ans, req.Nonce); err != nil {
			t.Error(err)
		}
		req.Nonce[0] ^= 1
		if _, err := l.verify(req, ans); err == nil {
			t.Error("verified for another nonce")
		}
		if err := c.checkquote(t, iak, ans, req.Nonce); err == nil {
			t.Error("tpm2_checkquote takes another nonce")
		}
	})
}

// checkquote asks tpm2-tools, which know nothing of us.
func (c curl) checkquote(t testing.TB, iak *ecdsa.PublicKey, ans wire.AttestAnswer, nonce []byte) error {
	t.Helper()
	if _, err := exec.LookPath("tpm2_checkquote"); err != nil {
		t.Skip("needs tpm2-tools: run scripts/setup")
	}
	der, err := x509.MarshalPKIXPublicKey(iak)
	if err != nil {
		t.Fatal(err)
	}
	c.keep(t, "iak.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	c.keep(t, "quote", ans.Quoted)
	c.keep(t, "signature", ans.Signature)
	out, err := exec.CommandContext(t.Context(), "tpm2_checkquote", "-u", c.path("iak.pem"), "-m", c.path("quote"),
		"-s", c.path("signature"), "-g", "sha384", "-q", hex.EncodeToString(nonce)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("tpm2_checkquote: %w: %s", err, out)
	}
	return nil
}

func nonce32(t testing.TB) []byte {
	t.Helper()
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// All data is of the YANG modules, in both versions of HTTP.
func TestDataIsOfTheYANGModules(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	l.enroll(t)
	c := l.ofOwner(t)
	y := newYanglint(t, c.get(t, dataSupport))
	const library = "/restconf/data/ietf-yang-library:"
	y.must(t, "data", c.get(t, "/restconf/data/ietf-restconf-monitoring:restconf-state"))
	y.must(t, "data", c.get(t, "/restconf"))
	if list := string(c.get(t, library+"yang-library")); !strings.Contains(list, `"feature":["bios","netequip_boot"]`) ||
		!strings.Contains(list, `"feature":["tpm20"]`) || strings.Count(list, `"feature"`) != 2 {
		t.Errorf("the features are not those that yanglint checks with: %s", list)
	}
	both := bytes.TrimSuffix(c.get(t, library+"yang-library"), []byte("}\n")) // the module demands both
	y.must(t, "data", append(append(both, ','), c.get(t, library+"modules-state")[1:]...))
	const head, tail = `{"ietf-restconf:data":`, "}\n"
	whole := string(c.get(t, "/restconf/data"))
	if !strings.HasPrefix(whole, head) || !strings.HasSuffix(whole, tail) {
		t.Fatalf("the data resource: %s", whole)
	}
	y.must(t, "data", []byte(whole[len(head):len(whole)-len(tail)]))
	for version, arg := range map[string]string{"1.1": "--http1.1", "2": "--http2"} {
		if a := c.run(t, "verifier", dataSupport, arg); a.version != version || a.status != 200 {
			t.Errorf("%s: HTTP/%s, status %d", arg, a.version, a.status)
		}
	}
}

// Takes away what yanglint looks at: a document with another name must fail,
// or the checks above say nothing.
func TestYanglintRefusesARenamedLeaf(t *testing.T) {
	l := newLab(t, newSoftChip(t), func(c *agent.Config) { c.Firmware = firmwareLog(t, c.Quoter.(chip)) })
	l.enroll(t)
	c := l.ofOwner(t)
	support := c.get(t, dataSupport)
	y := newYanglint(t, support)
	input := challengeText(nonce32(t), 12)
	output := c.post(t, opChallenge, input).body
	boot := c.post(t, opLog, logText("netequip_boot", "")).body
	bios := c.post(t, opLog, logText("bios", "")).body
	for _, test := range []struct{ kind, operation, doc, old, new string }{
		{"data", "", string(support), "hardware-based", "hardware"},
		{"data", "", string(support), "ietf-tcg-algs:tpm20", "ietf-tcg-algs:tpm12"},
		{"data", "", string(support), `"status":"operational"`, `"status":"good"`},
		{"rpc", opChallenge, input, "nonce-value", "nonce"},
		{"rpc", opChallenge, input, "TPM_ALG_SHA384", "TPM_ALG_SHA512"},
		{"rpc", opChallenge, input, `"pcr-index":[12]`, `"pcr-index":[32]`},
		{"rpc", opChallenge, input, `"nonce-value"`, `"certificate-name":["oiak"],"nonce-value"`},
		{"reply", opChallenge, string(output), "quote-data", "quote"},
		{"reply", opChallenge, string(output), `"oiak"`, `"other"`},
		{"reply", opLog, string(boot), "boot-event-entry", "boot-event"},
		{"reply", opLog, string(boot), `"event-number":"1"`, `"event-number":1`},
		{"reply", opLog, string(bios), "event-size", "size"},
	} {
		good, bad := []byte(test.doc), []byte(strings.ReplaceAll(test.doc, test.old, test.new))
		if bytes.Equal(good, bad) {
			t.Fatalf("%s stands nowhere in %s", test.old, test.doc)
		}
		if test.operation != "" {
			good, bad = envelope(t, test.operation, good), envelope(t, test.operation, bad)
		}
		y.must(t, test.kind, good)
		if y.check(t, test.kind, bad) == "" {
			t.Errorf("yanglint takes %s for %s", test.new, test.old)
		}
	}
}
