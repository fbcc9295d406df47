package agent_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"waxseal/agent"
)

// refusal is a request that must be refused, and how.
type refusal struct {
	name   string
	path   string   // below /restconf, or an operation where there is a body
	body   string   // "": none
	args   []string // of curl
	status int
	tag    string
}

// errorsOf is what a client reads of an error.
type errorsOf struct {
	Errors struct {
		Error []struct {
			Type    string `json:"error-type"`
			Tag     string `json:"error-tag"`
			Message string `json:"error-message"`
		} `json:"error"`
	} `json:"ietf-restconf:errors"`
}

// challengeOf is the input of a challenge with this inside.
func challengeOf(inside string) string {
	return `{"` + charra + `:input":{"tpm20-attestation-challenge":{` + inside + `}}}`
}

const (
	nonceText = `"nonce-value":"AAECAwQFBgcICQoLDA0ODw=="`
	bankText  = `"tpm20-pcr-selection":[{"tpm20-hash-algo":"ietf-tcg-algs:TPM_ALG_SHA384","pcr-index":[12]}]`
)

// nonceOf is a challenge with this nonce, as it is written.
func nonceOf(text string) string { return challengeOf(`"nonce-value":` + text + `,` + bankText) }

// bankOf is a challenge with this selection.
func bankOf(text string) string {
	return challengeOf(nonceText + `,"tpm20-pcr-selection":` + text)
}

func sized(n int) string { return `"` + base64.StdEncoding.EncodeToString(make([]byte, n)) + `"` }

func badChallenges() []refusal {
	const invalid, malformed, unknown, missing = "invalid-value", "malformed-message", "unknown-element", "missing-element"
	var table []refusal
	for _, test := range []struct {
		name, body string
		status     int
		tag        string
	}{
		{"not JSON", "nonce", 400, malformed},
		{"an array", "[]", 400, invalid},
		{"cut", nonceOf(sized(32))[:90], 400, malformed},
		{"two documents", nonceOf(sized(32)) + "{}", 400, malformed},
		{"byte order mark", "\ufeff" + nonceOf(sized(32)), 400, malformed},
		{"invalid UTF-8", strings.Replace(nonceOf(sized(32)), "SHA384", "\xff", 1), 400, malformed},
		{"10,001 arrays", strings.Repeat("[", 10001) + strings.Repeat("]", 10001), 400, malformed},
		{"17 arrays", challengeOf(`"x":` + strings.Repeat("[", 17) + strings.Repeat("]", 17)), 400, malformed},
		{"64 KiB and one byte", nonceOf(sized(32)) + strings.Repeat(" ", 64<<10), 413, "too-big"},
		{"5,000 members", "{" + strings.Repeat(`"a":1,`, 5000) + `"b":1}`, 400, malformed},
		{"doubled member", challengeOf(nonceText + "," + nonceText + "," + bankText), 400, malformed},
		{"unknown member", challengeOf(nonceText + `,"x":1,` + bankText), 400, unknown},
		{"member in other case", challengeOf(strings.ToUpper(nonceText) + "," + bankText), 400, unknown},
		{"member with its module", challengeOf(`"` + charra + ":" + nonceText[1:] + "," + bankText), 400, unknown},
		{"input without its module", `{"input":{}}`, 400, unknown},
		{"certificate-name without mtpm", challengeOf(nonceText + `,"certificate-name":["oiak"],` + bankText), 400, unknown},
		{"no input", "{}", 400, missing},
		{"empty input", `{"` + charra + `:input":{}}`, 400, missing},
		{"no nonce", challengeOf(bankText), 400, missing},
		{"null nonce", nonceOf("null"), 400, invalid},
		{"number for a nonce", nonceOf("1"), 400, invalid},
		{"empty nonce", nonceOf(`""`), 400, invalid},
		{"nonce of 15 bytes", nonceOf(sized(15)), 400, invalid},
		{"nonce of 65 bytes", nonceOf(sized(65)), 400, invalid},
		{"nonce that reads as the commitment of a batch", nonceOf(`"` + base64.StdEncoding.EncodeToString(append([]byte("waxseal-batch-1\x00"), make([]byte, 34)...)) + `"`), 400, invalid},
		{"base64 without padding", nonceOf(`"AAECAwQFBgcICQoLDA0ODw"`), 400, invalid},
		{"base64 with too much padding", nonceOf(`"AAECAwQFBgcICQoLDA0ODw==="`), 400, invalid},
		{"base64 in another spelling", nonceOf(`"AAECAwQFBgcICQoLDA0ODx=="`), 400, invalid},
		{"base64 of URLs", nonceOf(`"__8CAwQFBgcICQoLDA0ODw=="`), 400, invalid},
		{"base64 with a line break", nonceOf(`"AAECAwQFBgcI\nCQoLDA0ODw=="`), 400, invalid},
		{"base64 with a blank", nonceOf(`"AAECAwQF BgcICQoLDA0ODw=="`), 400, invalid},
		{"no selection", challengeOf(nonceText), 400, missing},
		{"empty selection", bankOf("[]"), 400, missing},
		{"selection without PCRs", bankOf(`[{"tpm20-hash-algo":"ietf-tcg-algs:TPM_ALG_SHA384"}]`), 400, missing},
		{"two banks", bankOf(`[{"pcr-index":[1]},{"tpm20-hash-algo":"ietf-tcg-algs:TPM_ALG_SHA384","pcr-index":[1]}]`), 501, "operation-not-supported"},
		{"PCR 24", bankOf(`[{"pcr-index":[24]}]`), 400, invalid},
		{"PCR -1", bankOf(`[{"pcr-index":[-1]}]`), 400, invalid},
		{"PCR 4,294,967,308", bankOf(`[{"pcr-index":[4294967308]}]`), 400, invalid},
		{"PCR 12.0", bankOf(`[{"pcr-index":[12.0]}]`), 400, invalid},
		{"PCR in text", bankOf(`[{"pcr-index":["12"]}]`), 400, invalid},
		{"PCR twice", bankOf(`[{"pcr-index":[12,12]}]`), 400, invalid},
		{"SHA-1", bankOf(`[{"tpm20-hash-algo":"ietf-tcg-algs:TPM_ALG_SHA1","pcr-index":[12]}]`), 400, invalid},
		{"bank that is not active", bankOf(`[{"tpm20-hash-algo":"ietf-tcg-algs:TPM_ALG_SHA512","pcr-index":[12]}]`), 400, invalid},
		{"bank without its module", bankOf(`[{"tpm20-hash-algo":"TPM_ALG_SHA384","pcr-index":[12]}]`), 400, invalid},
		{"bank of another module", bankOf(`[{"tpm20-hash-algo":"` + charra + `:TPM_ALG_SHA384","pcr-index":[12]}]`), 400, invalid},
	} {
		table = append(table, refusal{test.name, opChallenge, test.body, nil, test.status, test.tag})
	}
	return table
}

func badLogs() []refusal {
	const invalid, malformed, unknown = "invalid-value", "malformed-message", "unknown-element"
	var table []refusal
	for _, test := range []struct {
		name, body string
		status     int
		tag        string
	}{
		{"no log-type", `{"` + charra + `:input":{}}`, 400, "missing-element"},
		{"log-type ima", logText("ima", ""), 400, invalid},
		{"log-type of another module", logText("ietf-tcg-algs:netequip_boot", ""), 400, invalid},
		{"unknown member", logText("bios", `{"offset":1}`), 400, unknown},
		{"index of -1", logText("netequip_boot", `{"last-index-number":"-1"}`), 400, invalid},
		{"index as a number", logText("netequip_boot", `{"last-index-number":1}`), 400, invalid},
		{"index null", logText("netequip_boot", `{"last-index-number":null}`), 400, invalid},
		{"index in hexadecimal", logText("netequip_boot", `{"last-index-number":"0x1"}`), 400, invalid},
		{"index with zeros", logText("netequip_boot", `{"last-index-number":"01"}`), 400, invalid},
		{"index with a sign", logText("netequip_boot", `{"last-index-number":"+1"}`), 400, invalid},
		{"index beyond the end", logText("netequip_boot", `{"last-index-number":"8"}`), 400, invalid},
		{"index of 2^63", logText("netequip_boot", `{"last-index-number":"9223372036854775808"}`), 400, invalid},
		{"index of 2^64", logText("netequip_boot", `{"last-index-number":"18446744073709551616"}`), 400, invalid},
		{"index and timestamp", logText("netequip_boot", `{"last-index-number":"0","timestamp":"2026-01-01T00:00:00Z"}`), 400, "bad-element"},
		{"quantity of -1", logText("netequip_boot", `{"log-entry-quantity":-1}`), 400, invalid},
		{"quantity of 65,536", logText("netequip_boot", `{"log-entry-quantity":65536}`), 400, invalid},
		{"quantity in text", logText("netequip_boot", `{"log-entry-quantity":"1"}`), 400, invalid},
		{"other TPM", logText("netequip_boot", `{"name":["tpm1"]}`), 400, invalid},
		{"TPM twice", logText("netequip_boot", `{"name":["tpm0","tpm0"]}`), 400, invalid},
		{"two selectors", logText("netequip_boot", `{},{}`), 501, "operation-not-supported"},
		{"timestamp without a zone", logText("netequip_boot", `{"timestamp":"2026-01-01T00:00:00"}`), 400, invalid},
		{"timestamp with a comma", logText("netequip_boot", `{"timestamp":"2026-01-01T01:00:00,5Z"}`), 400, invalid},
		{"timestamp with one digit", logText("netequip_boot", `{"timestamp":"2026-01-01T1:00:00Z"}`), 400, invalid},
		{"31 February", logText("netequip_boot", `{"timestamp":"2026-02-31T01:00:00Z"}`), 400, invalid},
		{"timestamp of the firmware's log", logText("bios", `{"timestamp":"2026-01-01T00:00:00Z"}`), 501, "operation-not-supported"},
		{"entry that is none", logText("netequip_boot", `{"last-entry-value":"AAAA"}`), 400, invalid},
		{"entry that is empty", logText("netequip_boot", `{"last-entry-value":""}`), 400, invalid},
		{"event that is not unique", logText("bios", `{"last-entry-value":"AAAAAA=="}`), 400, invalid},
		{"event that is not there", logText("bios", `{"last-entry-value":"AAAAAQ=="}`), 400, invalid},
		{"cut", logText("bios", "")[:20], 400, malformed},
	} {
		table = append(table, refusal{test.name, opLog, test.body, nil, test.status, test.tag})
	}
	return table
}

func badRequests() []refusal {
	const op, data = "/restconf/operations/" + charra + ":" + opChallenge, dataSupport
	good := nonceOf(sized(32))
	unsupported := "operation-not-supported"
	withType := func(media string) []string { return []string{"--header", "Content-Type: " + media} }
	return []refusal{
		{"5 MB nonce", op, nonceOf(sized(5 << 20)), append(withType(yangData), "--http1.1"), 413, "too-big"},
		{"XML", op, good, withType("application/yang-data+xml"), 415, unsupported},
		{"plain JSON", op, good, withType("application/json"), 415, unsupported},
		{"a charset", op, good, withType(yangData + "; charset=utf-8"), 415, unsupported},
		{"no media type", op, good, withType(""), 415, unsupported},
		{"compressed", op, good, append(withType(yangData), "--header", "Content-Encoding: gzip"), 415, unsupported},
		{"answer in XML", op, good, append(withType(yangData), "--header", "Accept: application/yang-data+xml"), 406, "invalid-value"},
		{"answer of no use", op, good, append(withType(yangData), "--header", "Accept: "+yangData+";q=0"), 406, "invalid-value"},
		{"query of an operation", op + "?depth=1", good, withType(yangData), 400, "invalid-value"},
		{"TPM 1.2", strings.Replace(op, "tpm20", "tpm12", 1), "{}", withType(yangData), 501, unsupported},
		{"unknown operation", op + "x", good, withType(yangData), 404, "invalid-value"},
		{"GET of an operation", op, "", nil, 405, unsupported},
		{"PUT of an operation", op, "", []string{"--request", "PUT"}, 405, unsupported},
		{"POST of data", data, good, withType(yangData), 405, unsupported},
		{"DELETE of data", data, "", []string{"--request", "DELETE"}, 405, unsupported},
		{"PATCH of data", data, good, append(withType(yangData), "--request", "PATCH"), 405, unsupported},
		{"data in XML", data, "", []string{"--header", "Accept: application/yang-data+xml"}, 406, "invalid-value"},
		{"fields of data", data + "?fields=tpms", "", nil, 400, "invalid-value"},
		{"part that is none", data + "?content=x", "", nil, 400, "invalid-value"},
		{"query twice", data + "?content=all&content=all", "", nil, 400, "invalid-value"},
		{"list without a key", data + "/tpms/tpm", "", nil, 400, "invalid-value"},
		{"other TPM", data + "/tpms/tpm=tpm1", "", nil, 404, "invalid-value"},
		{"unknown node", data + "/tpmz", "", nil, 404, "invalid-value"},
		{"key of a container", data + "/tpms=tpm0", "", nil, 400, "invalid-value"},
		{"key badly encoded", data + "/tpms/tpm=%zz", "", []string{"--http1.1"}, 400, ""},
		{"child of a leaf", data + "/tpms/tpm=tpm0/name/x", "", nil, 404, "invalid-value"},
		{"path with a slash more", data + "/", "", nil, 404, "invalid-value"},
		{"path with dots", "/restconf/../restconf", "", nil, 404, "invalid-value"},
		{"encoded path", strings.Replace(data, "rats", "%72ats", 1), "", nil, 404, "invalid-value"},
		{"other module", "/restconf/data/ietf-interfaces:interfaces", "", nil, 404, "invalid-value"},
		{"other path", "/restconfx", "", nil, 404, "invalid-value"},
		{"root", "/", "", nil, 404, "invalid-value"},
		{"16 KiB of headers", data, "", []string{"--http1.1", "--header", "X: " + strings.Repeat("a", 32<<10)}, 431, ""},
		{"16 KiB of path", data + strings.Repeat("/a", 16<<10), "", []string{"--http1.1"}, 431, ""},
	}
}

// Every refusal: the status and the tag of RFC 8040, section 7, in a document
// of ietf-restconf, and the TPM is not asked.
func TestBadRequestsOfRESTCONFAreRefused(t *testing.T) {
	chip := newSoftChip(t)
	firmware := firmwareLog(t, chip)
	l := newLab(t, chip, func(c *agent.Config) { c.Firmware = firmware })
	l.enroll(t)
	c := l.ofOwner(t)
	y := newYanglint(t, c.get(t, dataSupport))
	checked := map[string]bool{} // tags
	for _, test := range append(append(badChallenges(), badLogs()...), badRequests()...) {
		var a answer
		switch {
		case test.path[0] != '/':
			a = c.post(t, test.path, test.body)
		case test.body != "":
			c.keep(t, "request", []byte(test.body))
			a = c.run(t, "verifier", test.path, append(test.args, "--data-binary", "@"+c.path("request"))...)
		default:
			a = c.run(t, "verifier", test.path, test.args...)
		}
		if a.status != test.status {
			t.Errorf("%s: curl ended with %d, status %d: want %d: %s", test.name, a.exit, a.status, test.status, a.body)
			continue
		}
		if a.status == 405 && !strings.Contains(a.headers, "llow: ") {
			t.Errorf("%s: no Allow in %s", test.name, a.headers)
		}
		if test.tag == "" {
			continue // net/http has refused it
		}
		doc := read[errorsOf](t, a.body).Errors.Error
		if a.media != yangData || len(doc) != 1 || doc[0].Tag != test.tag || doc[0].Message == "" {
			t.Errorf("%s: %s: want %s in %s", test.name, a.media, test.tag, a.body)
		}
		if !checked[test.tag] {
			y.must(t, "data", a.body)
		}
		checked[test.tag] = true
	}
	if n := chip.quotes.Load(); n != 0 {
		t.Errorf("%d quotes for bad requests", n)
	}
	if a := c.post(t, opChallenge, nonceOf(sized(32))); a.status != 200 {
		t.Errorf("then a good challenge: status %d: %s", a.status, a.body)
	}
}

// The good spellings beside the refused ones.
func TestGoodRequestsOfRESTCONFAreAnswered(t *testing.T) {
	l := newLab(t, newSoftChip(t))
	l.enroll(t)
	c := l.ofOwner(t)
	y := newYanglint(t, c.get(t, dataSupport))
	for _, text := range []string{
		nonceOf(sized(16)), nonceOf(sized(64)), challengeText(nonce32(t), 23, 0),
		bankOf(`[{"pcr-index":[12]}]`), // SHA-256, says the model
		" \n" + nonceOf(`"\u0041AECAwQFBgcICQoLDA0ODw=="`),
	} {
		y.must(t, "rpc", envelope(t, opChallenge, []byte(strings.TrimSpace(text))))
		a := c.post(t, opChallenge, text)
		if a.status != 200 {
			t.Errorf("%s: status %d: %s", text, a.status, a.body)
			continue
		}
		y.must(t, "reply", envelope(t, opChallenge, a.body))
	}
	for path, want := range map[string]string{
		"/.well-known/host-meta":                         `<Link rel="restconf" href="/restconf"/>`,
		"/.well-known/host-meta.json":                    `{"links":[{"rel":"restconf","href":"/restconf"}]}`,
		"/restconf/yang-library-version":                 `{"ietf-restconf:yang-library-version":"2019-01-04"}`,
		"/restconf/operations":                           charra + `:log-retrieval":[null]`,
		dataSupport + "/tpms/tpm=tpm0/status":            `{"` + charra + `:status":"operational"}`,
		dataSupport + "/tpms/tpm=tpm0/certificates":      `{"` + charra + `:certificates":{"certificate":[{"name":"iak",`,
		dataSupport + "/tpms/tpm=%74pm0/hardware-based":  `:hardware-based":true`,
		dataSupport + "/tpms/tpm=tpm0?content=nonconfig": `{"` + charra + `:tpm":[{"name":"tpm0","hardware-based":true,"status":"operational"}]}`,
		dataSupport + "/tpms?content=config":             `{"name":"tpm0","firmware-version":"ietf-tcg-algs:tpm20",`,
		"/restconf/data/ietf-yang-library:yang-library/module-set=waxseal/import-only-module=ietf-hardware,2018-03-13": `urn:ietf:params:xml:ns:yang:ietf-hardware`,
		dataSupport + "/tpms/tpm=tpm0/tpm20-pcr-bank=ietf-tcg-algs%3ATPM_ALG_SHA256/pcr-index=7":                       `{"` + charra + `:pcr-index":[7]}`,
	} {
		if got := string(c.get(t, path)); !strings.Contains(got, want) {
			t.Errorf("%s: %s: want %s", path, got, want)
		}
	}
	if a := c.run(t, "verifier", dataSupport, "--request", "OPTIONS"); a.status != 200 || !strings.Contains(a.headers, "GET, HEAD, OPTIONS") {
		t.Errorf("OPTIONS: status %d: %s", a.status, a.headers)
	}
	if a := c.run(t, "verifier", dataSupport, "--head"); a.status != 200 || a.media != yangData {
		t.Errorf("HEAD: status %d, %s", a.status, a.media)
	}
}
