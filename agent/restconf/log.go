package restconf

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"

	"waxseal/measure"
	"waxseal/measure/eventlog"
	"waxseal/measure/wire"
)

// logInput is the input of log-retrieval.
type logInput struct {
	Input *struct {
		Type      *string    `json:"log-type"`
		Selectors []selector `json:"log-selector"`
	} `json:"ietf-tpm-remote-attestation:input"`
}

type selector struct {
	TPMs      []string `json:"name"`
	LastEntry *binary  `json:"last-entry-value"`
	LastIndex *counter `json:"last-index-number"`
	Since     *instant `json:"timestamp"`
	Quantity  *uint16  `json:"log-entry-quantity"`
}

// log answers log-retrieval. The log is copied once: what is sent is one state
// of it, however long the sending takes.
func (h *Handler) log(w http.ResponseWriter, r *http.Request) error {
	b, err := body(r)
	if err != nil {
		return err
	}
	kind, sel, err := parseLog(b)
	if err != nil {
		return err
	}
	select {
	case h.readers <- struct{}{}:
		defer func() { <-h.readers }()
	default:
		return fmt.Errorf("%w: %d logs are being sent", wire.ErrBusy, cap(h.readers))
	}
	joined, err := h.config.Desk.Log()
	if err != nil {
		return err
	}
	h.seen.note(h.config.Now(), len(joined.Ours()))
	p, err := h.page(kind(joined), sel)
	if err != nil {
		return err
	}
	h.send(w, p)
	return nil
}

// parseLog returns the log that an input asks for, and which of its entries.
func parseLog(b []byte) (func(eventlog.Log) view, selector, error) {
	var doc logInput
	if err := decode(b, &doc); err != nil {
		return nil, selector{}, err
	}
	switch {
	case doc.Input == nil:
		return nil, selector{}, missing(charra + ":input")
	case doc.Input.Type == nil:
		return nil, selector{}, missing("log-type")
	case len(doc.Input.Selectors) > 1:
		return nil, selector{}, unsupported("more than one log-selector: ask once for each")
	}
	kind, ok := views[own(*doc.Input.Type)]
	if !ok {
		return nil, selector{}, invalid("log-type %q: this device has netequip_boot and bios", *doc.Input.Type)
	}
	var sel selector
	if len(doc.Input.Selectors) == 1 {
		sel = doc.Input.Selectors[0]
	}
	return kind, sel, sel.check()
}

func (s selector) check() error {
	ways := 0
	for _, given := range []bool{s.LastEntry != nil, s.LastIndex != nil, s.Since != nil} {
		if given {
			ways++
		}
	}
	if ways > 1 {
		p := invalid("only one of last-entry-value, last-index-number and timestamp may stand in a log-selector")
		p.tag = "bad-element"
		return p
	}
	for i, name := range s.TPMs {
		if name != nameTPM || i > 0 {
			return invalid("name %q: this device has one TPM, %s", name, nameTPM)
		}
	}
	return nil
}

// view is the part of the log that has one log-type.
type view struct {
	banks  []measure.Alg
	events []eventlog.Event
	ours   bool
}

// views are the log types of this device. netequip_boot has the agent's
// records, whose form is that of IMA; bios has what the firmware left.
var views = map[string]func(eventlog.Log) view{
	"netequip_boot": func(l eventlog.Log) view { return view{l.Banks, l.Ours(), true} },
	"bios":          func(l eventlog.Log) view { return view{l.Banks, l.Firmware(), false} },
}

// page is the part of a view that answers one question. Its first entry has
// the number first+1: entries are numbered from 1, since 0 means none.
type page struct {
	view
	first int
}

func (h *Handler) page(v view, s selector) (page, error) {
	first, err := h.first(v, s)
	if err != nil {
		return page{}, err
	}
	end := len(v.events)
	if s.Quantity != nil {
		end = min(end, first+int(*s.Quantity))
	}
	v.events = v.events[first:end]
	return page{v, first}, nil
}

// first returns how many entries stand before those that are asked for. An
// index beyond the end is an error: it is of a log before this boot.
func (h *Handler) first(v view, s selector) (int, error) {
	switch {
	case s.LastIndex != nil:
		if uint64(*s.LastIndex) > uint64(len(v.events)) {
			return 0, invalid("last-index-number %d: the log has %d entries", *s.LastIndex, len(v.events))
		}
		return int(*s.LastIndex), nil
	case s.LastEntry != nil:
		return v.after(*s.LastEntry)
	case s.Since != nil && v.ours:
		return min(h.seen.before(s.Since.at), len(v.events)), nil
	case s.Since != nil:
		return 0, unsupported("timestamp: the firmware's log has no times")
	}
	return 0, nil
}

// after returns the number of the one entry that the client names: for
// netequip_boot by the whole entry in the form of an IMA list, for bios by the
// event data. An entry that is not unique is an error, says the model.
func (v view) after(value []byte) (int, error) {
	same := func(e eventlog.Event) bool { return bytes.Equal(e.Data, value) }
	if v.ours {
		l, err := eventlog.DecodeIMA(value, v.column(), v.column())
		if err != nil || len(l.Events) != 1 {
			return 0, invalid("last-entry-value is not one entry of an IMA list with %v digests", v.column())
		}
		same = func(e eventlog.Event) bool { return e.PCR == l.Events[0].PCR && bytes.Equal(e.Data, l.Events[0].Data) }
	}
	at := slices.IndexFunc(v.events, same)
	if at < 0 {
		return 0, invalid("last-entry-value is no entry of the log")
	}
	if slices.ContainsFunc(v.events[at+1:], same) {
		return 0, invalid("last-entry-value is more than one entry of the log: use last-index-number")
	}
	return at + 1, nil
}

// column is the bank whose digests stand in a netequip_boot log, which has
// room for one. The other banks' follow from the entry.
func (v view) column() measure.Alg {
	for _, alg := range []measure.Alg{measure.SHA384, measure.SHA256, measure.SHA512} {
		if slices.Contains(v.banks, alg) {
			return alg
		}
	}
	return 0
}
