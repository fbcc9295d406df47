package restconf

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"waxseal/agent/quote"
	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/wire"
)

// desk is a device with a log that grows.
type desk struct {
	mu       sync.Mutex
	events   []measure.Event
	firmware []eventlog.Event
	asked    int
	take     func(quote.Question) (quote.Answer, error)
}

var banks = []measure.Alg{measure.SHA256, measure.SHA384}

func (d *desk) Banks() []measure.Alg    { return banks }
func (d *desk) Probe() string           { return "" }
func (d *desk) Check(measure.Alg) error { return nil }

func (d *desk) Take(_ context.Context, q quote.Question) (quote.Answer, error) {
	d.asked++
	if d.take != nil {
		return d.take(q)
	}
	return quote.Answer{Quoted: []byte("quoted"), Signature: []byte("signature"), PCRs: map[measure.PCR][]byte{12: make([]byte, 48)}}, nil
}

func (d *desk) Log() (eventlog.Log, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return eventlog.Join(eventlog.Log{Banks: banks, Events: d.firmware}, eventlog.New(banks, d.events))
}

// record adds entries.
func (d *desk) record(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for range n {
		name := fmt.Sprintf("runtime/entry/%d", len(d.events)+1)
		rec := measure.Record{PCR: 15, Name: name, Content: [32]byte(measure.Hash(measure.SHA256, []byte(name)).Sum)}
		d.events = append(d.events, measure.Event{Record: rec, Digests: rec.Digests(banks)})
	}
}

// clock is a clock that a test sets.
type clock struct{ now time.Time }

func newHandler(d *desk, changes ...func(*Config)) *Handler {
	c := Config{
		Desk: d, OIAK: func() wire.Chain { return wire.Chain{"oiak"} }, Admit: func(*http.Request) error { return nil },
		Now: time.Now, Stall: time.Minute, Log: slog.New(slog.DiscardHandler),
	}
	for _, change := range changes {
		change(&c)
	}
	return New(c)
}

func post(h http.Handler, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", yangData)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// selected returns the numbers of the entries that a selector gives.
func selected(t testing.TB, h http.Handler, selector string) []uint64 {
	t.Helper()
	w := post(h, opLog, `{"ietf-tpm-remote-attestation:input":{"log-type":"netequip_boot","log-selector":[`+selector+`]}}`)
	if w.Code != http.StatusOK {
		t.Fatalf("%s: status %d: %s", selector, w.Code, w.Body)
	}
	var out struct {
		Output struct {
			Logs struct {
				Nodes []struct {
					Result struct {
						Boot struct {
							Entries []struct {
								Number uint64 `json:"event-number,string"`
								Name   string `json:"filename-hint"`
							} `json:"boot-event-entry"`
						} `json:"boot-event-logs"`
					} `json:"log-result"`
				} `json:"node-data"`
			} `json:"system-event-logs"`
		} `json:"ietf-tpm-remote-attestation:output"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	var numbers []uint64
	for _, n := range out.Output.Logs.Nodes {
		for _, e := range n.Result.Boot.Entries {
			if e.Name != fmt.Sprintf("runtime/entry/%d", e.Number) {
				t.Errorf("entry %d has the name %s: numbers have shifted", e.Number, e.Name)
			}
			numbers = append(numbers, e.Number)
		}
	}
	return numbers
}

// wants is the numbers from first to last.
func wants(t testing.TB, what string, got []uint64, first, last int) {
	t.Helper()
	if len(got) != max(0, last-first+1) {
		t.Errorf("%s: entries %d: want %d to %d", what, got, first, last)
		return
	}
	for i, n := range got {
		if n != uint64(first+i) {
			t.Errorf("%s: entries %d: want %d to %d", what, got, first, last)
			return
		}
	}
}

func TestPagesByIndex(t *testing.T) {
	d := &desk{}
	d.record(100)
	h := newHandler(d)
	for _, test := range []struct {
		selector    string
		first, last int
	}{
		{"", 1, 100},
		{"{}", 1, 100},
		{`{"name":["tpm0"]}`, 1, 100},
		{`{"last-index-number":"0"}`, 1, 100},
		{`{"last-index-number":"99"}`, 100, 100},
		{`{"last-index-number":"100"}`, 101, 100},
		{`{"last-index-number":"0","log-entry-quantity":0}`, 1, 0},
		{`{"last-index-number":"0","log-entry-quantity":1}`, 1, 1},
		{`{"last-index-number":"95","log-entry-quantity":65535}`, 96, 100},
		{`{"log-entry-quantity":7}`, 1, 7},
	} {
		wants(t, test.selector, selected(t, h, test.selector), test.first, test.last)
	}
}

// A client that pages while the log grows sees each entry once, under one number.
func TestPagesOfAGrowingLogAreOneLog(t *testing.T) {
	d := &desk{}
	d.record(10)
	h := newHandler(d)
	var all []uint64
	for range 20 {
		page := selected(t, h, fmt.Sprintf(`{"last-index-number":"%d","log-entry-quantity":7}`, len(all)))
		all = append(all, page...)
		d.record(3)
	}
	wants(t, "all pages", all, 1, len(all))
	if len(all) < 60 {
		t.Errorf("%d entries: want those that came in between too", len(all))
	}
}

func TestPageAfterAnEntry(t *testing.T) {
	d := &desk{}
	d.record(5)
	h := newHandler(d)
	entry := func(events ...measure.Event) string {
		list, err := eventlog.EncodeIMA(eventlog.New(banks, events), measure.SHA384)
		if err != nil {
			t.Fatal(err)
		}
		return `{"last-entry-value":"` + base64.StdEncoding.EncodeToString(list) + `"}`
	}
	wants(t, "after entry 3", selected(t, h, entry(d.events[2])), 4, 5)
	wants(t, "after the last", selected(t, h, entry(d.events[4])), 6, 5)
	input := `{"ietf-tpm-remote-attestation:input":{"log-type":"netequip_boot","log-selector":[%s]}}`
	if w := post(h, opLog, fmt.Sprintf(input, entry(d.events[1:3]...))); w.Code != 400 {
		t.Errorf("two entries: status %d", w.Code)
	}
	d.events = append(d.events, d.events[2])
	if w := post(h, opLog, fmt.Sprintf(input, entry(d.events[2]))); w.Code != 400 || !strings.Contains(w.Body.String(), "more than one") {
		t.Errorf("an entry that stands twice: status %d: %s", w.Code, w.Body)
	}
	other := d.events[0]
	other.PCR = 14
	if w := post(h, opLog, fmt.Sprintf(input, entry(other))); w.Code != 400 {
		t.Errorf("an entry of another PCR: status %d", w.Code)
	}
}

// Whoever asks for what came after a time gets all of it.
func TestPageAfterATimeMissesNothing(t *testing.T) {
	start := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	c := &clock{start}
	d := &desk{}
	d.record(4) // before the start
	h := newHandler(d, func(conf *Config) { conf.Now = func() time.Time { return c.now } })
	at := func(s time.Duration) string { return `{"timestamp":"` + start.Add(s).Format(time.RFC3339) + `"}` }
	c.now = start.Add(time.Minute)
	wants(t, "nothing new", selected(t, h, at(0)), 5, 4)
	d.record(2)
	c.now = start.Add(2 * time.Minute)
	wants(t, "since the start", selected(t, h, at(0)), 5, 6)
	wants(t, "since the first question", selected(t, h, at(time.Minute)), 5, 6)
	wants(t, "since before the start", selected(t, h, at(-time.Hour)), 1, 6)
	wants(t, "since later", selected(t, h, at(time.Hour)), 7, 6)
	d.record(1)
	wants(t, "since before it was seen", selected(t, h, at(90*time.Second)), 5, 7) // 5 and 6 may be later
	c.now = start.Add(-24 * time.Hour)                                             // somebody sets the clock back
	d.record(1)
	wants(t, "since the clock was set back", selected(t, h, at(-24*time.Hour)), 1, 8)
}

func TestTimelineIsBoundedAndNeverTooLate(t *testing.T) {
	var l timeline
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 10 * maxMarks {
		l.note(start.Add(time.Duration(i)*time.Second), i)
	}
	if len(l.marks) > maxMarks {
		t.Errorf("%d marks: at most %d", len(l.marks), maxMarks)
	}
	for i := range 10 * maxMarks {
		if got := l.before(start.Add(time.Duration(i) * time.Second)); got > i {
			t.Fatalf("at second %d there were %d entries: it says %d", i, i, got)
		}
	}
}

// The text of what went wrong inside the device stays inside.
func TestFaultsOfTheDeviceAreHidden(t *testing.T) {
	d := &desk{take: func(quote.Question) (quote.Answer, error) {
		return quote.Answer{}, fmt.Errorf("open /conf/secret: TPM_RC_FAILURE")
	}}
	w := post(newHandler(d), opChallenge, good)
	if w.Code != 500 || strings.Contains(w.Body.String(), "secret") || !strings.Contains(w.Body.String(), `"operation-failed"`) {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
}

func TestErrorsOfTheDeskHaveTheirTags(t *testing.T) {
	for _, test := range []struct {
		err    error
		status int
		tag    string
	}{
		{wire.ErrBusy, 409, "resource-denied"},
		{wire.ErrRetry, 409, "resource-denied"},
		{wire.ErrNotReady, 412, "operation-failed"},
		{wire.ErrInvalid, 400, "invalid-value"},
		{context.DeadlineExceeded, 500, "operation-failed"},
	} {
		d := &desk{take: func(quote.Question) (quote.Answer, error) { return quote.Answer{}, fmt.Errorf("quote: %w", test.err) }}
		w := post(newHandler(d), opChallenge, good)
		if w.Code != test.status || !strings.Contains(w.Body.String(), test.tag) {
			t.Errorf("%v: status %d: %s", test.err, w.Code, w.Body)
		}
	}
}

const good = `{"ietf-tpm-remote-attestation:input":{"tpm20-attestation-challenge":{"nonce-value":"AAECAwQFBgcICQoLDA0ODw==",` +
	`"tpm20-pcr-selection":[{"tpm20-hash-algo":"ietf-tcg-algs:TPM_ALG_SHA384","pcr-index":[12]}]}}}`
