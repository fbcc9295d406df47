package challenge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"waxseal/measure"
	"waxseal/measure/wire"
)

// Bounds of the texts that one answer may bring.
const (
	maxTexts     = 256
	maxTextBytes = 8 << 20
)

// texts fetches what lies under the digests of records, as far as the router
// shows it. note says what is missing for another reason than that it does not.
func (c Config) texts(ctx context.Context, conn wire.Conn, records []measure.Record) (texts map[string][]byte, note string) {
	ctx, cancel := context.WithTimeout(ctx, c.Texts)
	defer cancel()
	texts = map[string][]byte{}
	bytes, asked := 0, 0
	for _, sum := range c.wanted(records) {
		if asked == maxTexts || bytes >= maxTextBytes {
			return texts, fmt.Sprintf("some texts were not fetched: at most %d and %d bytes are", maxTexts, maxTextBytes)
		}
		asked++
		text, err := conn.Contents().Content(ctx, sum)
		switch {
		case errors.Is(err, wire.ErrNotFound):
		case errors.Is(err, wire.ErrNoMethod):
			return texts, ""
		case err != nil:
			return texts, fmt.Sprintf("some texts were not fetched: %v", err)
		default:
			bytes += len(text)
			texts[hex.EncodeToString(sum[:])] = text
		}
	}
	return texts, ""
}

// wanted returns the digests of records that the reference does not accept, or
// of all where there is no reference or all are wanted.
func (c Config) wanted(records []measure.Record) [][sha256.Size]byte {
	accepted := map[string]bool{}
	if c.Reference != nil && !c.AllTexts {
		for _, item := range c.Reference.Items {
			for _, d := range item.SHA256 {
				accepted[item.Name+" "+hex.EncodeToString(d)] = true
			}
		}
	}
	if c.Reference == nil && !c.AllTexts {
		return nil
	}
	seen := map[[sha256.Size]byte]bool{}
	var sums [][sha256.Size]byte
	for _, r := range records {
		if seen[r.Content] || r.Subject() != r.Name || !mayBeText(r) || accepted[r.Name+" "+hex.EncodeToString(r.Content[:])] {
			continue
		}
		seen[r.Content] = true
		sums = append(sums, r.Content)
	}
	return sums
}

// mayBeText leaves out what no router keeps as text: code and phases.
func mayBeText(r measure.Record) bool {
	switch r.Class() {
	case "policy", "cmdline", "owner", "config", "startup", "bootenv", "module", "mirror", "runtime":
		return true
	}
	return strings.Contains(r.Name, "?c=") && r.Class() != "aggregate"
}
