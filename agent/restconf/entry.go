package restconf

import (
	"bufio"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"waxseal/measure/eventlog"
)

// bootEntry is an entry of a netequip_boot log (RFC 9684, grouping ima-event).
type bootEntry struct {
	Number       uint64 `json:"event-number,string"`
	Template     string `json:"ima-template"`
	Name         string `json:"filename-hint"`
	Content      []byte `json:"filedata-hash"`
	ContentAlg   string `json:"filedata-hash-algorithm"`
	TemplateAlg  string `json:"template-hash-algorithm"`
	TemplateHash []byte `json:"template-hash"`
	PCR          uint8  `json:"pcr-index"`
}

// biosEntry is an entry of a bios log (RFC 9684, grouping boot-event-log).
type biosEntry struct {
	Number  uint32      `json:"event-number"`
	Type    uint32      `json:"event-type"`
	PCR     uint8       `json:"pcr-index"`
	Digests []digestRow `json:"digest-list"`
	Size    uint32      `json:"event-size"`
	Data    [][]byte    `json:"event-data,omitempty"` // one value, none if it is empty
}

type digestRow struct {
	Alg  string   `json:"hash-algo"`
	Sums [][]byte `json:"digest"`
}

// entry returns entry i of the page.
func (p page) entry(i int) (any, error) {
	number, e := p.first+i+1, p.events[i]
	if !p.ours {
		return biosEntryOf(uint32(number), e), nil
	}
	rec, err := e.Record()
	if err != nil {
		return nil, err
	}
	alg := p.column()
	digest, ok := e.Digest(alg)
	if !ok {
		return nil, fmt.Errorf("entry %d has no digest of bank %v", number, alg)
	}
	return bootEntry{
		Number: uint64(number), Template: "ima-ng", Name: rec.Name,
		Content: rec.Content[:], ContentAlg: "sha256",
		TemplateAlg: alg.String(), TemplateHash: digest.Sum, PCR: uint8(e.PCR),
	}, nil
}

func biosEntryOf(number uint32, e eventlog.Event) biosEntry {
	b := biosEntry{Number: number, Type: e.Type, PCR: uint8(e.PCR), Size: uint32(len(e.Data))}
	for _, d := range e.Digests {
		b.Digests = append(b.Digests, digestRow{algIdentity[d.Alg], [][]byte{d.Sum}})
	}
	if len(e.Data) > 0 {
		b.Data = [][]byte{e.Data}
	}
	return b
}

// What stands around the entries of an output. An answer without entries has
// no node-data: a log-result must not be empty.
const (
	outputStart = `{"ietf-tpm-remote-attestation:output":{"system-event-logs":{`
	outputEnd   = "}}}\n"
	nodeStart   = `"node-data":[{"name":"` + nameTPM + `",`
	bootStart   = `"log-result":{"boot-event-logs":{"boot-event-entry":[`
	biosStart   = `"log-result":{"bios-event-logs":{"bios-event-entry":[`
	nodeEnd     = `]}}}]`
)

// chunk is how much of a log is written at once, in bytes. A client must take
// that much within Config.Stall.
const chunk = 16 << 10

// send writes the output of log-retrieval, entry by entry: no answer stands in
// memory in full. An answer that breaks off ends the connection, so that no
// client takes a part for the whole.
func (h *Handler) send(w http.ResponseWriter, p page) {
	w.Header().Set("Content-Type", yangData)
	out := bufio.NewWriterSize(patient{w, h.config.Stall}, chunk)
	err := h.sendTo(out, p)
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		panic(http.ErrAbortHandler)
	}
}

func (h *Handler) sendTo(out *bufio.Writer, p page) error {
	out.WriteString(outputStart) // a bufio.Writer keeps its error
	if len(p.events) > 0 {
		out.WriteString(nodeStart)
		if up := h.uptime(); up != nil {
			fmt.Fprintf(out, `"up-time":%d,`, *up)
		}
		if err := p.writeTo(out); err != nil {
			return err
		}
		out.WriteString(nodeEnd)
	}
	_, err := out.WriteString(outputEnd)
	return err
}

func (p page) writeTo(out *bufio.Writer) error {
	start := biosStart
	if p.ours {
		start = bootStart
	}
	out.WriteString(start)
	for i := range p.events {
		e, err := p.entry(i)
		if err != nil {
			return err
		}
		b, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if i > 0 {
			out.WriteByte(',')
		}
		if _, err := out.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// patient writes in chunks, each with a deadline of its own: a slow client gets
// the time that it needs as long as it takes something.
type patient struct {
	http.ResponseWriter
	stall time.Duration
}

// Write implements io.Writer.
func (p patient) Write(b []byte) (int, error) {
	done := 0
	for part := range slices.Chunk(b, chunk) {
		_ = http.NewResponseController(p.ResponseWriter).SetWriteDeadline(time.Now().Add(p.stall)) // a recorder in a test has none
		n, err := p.ResponseWriter.Write(part)
		if done += n; err != nil {
			return done, err
		}
	}
	return done, nil
}
