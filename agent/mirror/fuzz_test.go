package mirror

import (
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// FuzzJudge demands of whatever is observed, in whatever order, that the judge
// keeps its bounds and that each line it writes is one line.
func FuzzJudge(f *testing.F) {
	f.Add([]byte("\x01\x02\x03\x04\x05\x06\x07\x08"), "r0", "tc mirred mirror")
	f.Add([]byte("\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8\xf7\xf6\xf5"), "r0\n{}", "\x1b[2J")
	f.Fuzz(func(t *testing.T, data []byte, name, cause string) {
		var seed [8]byte
		copy(seed[:], data)
		random := rand.New(rand.NewPCG(binary.LittleEndian.Uint64(seed[:]), uint64(len(data))))
		j := NewJudge(Config{Ports: []string{"r0", "r1", name}})
		steps := soup(random)
		for i, b := range data {
			o := *steps[i%len(steps)].see
			o.Gone, o.Harmless, o.Baseline = b&1 != 0, b&2 != 0, b&4 != 0
			if b&8 != 0 {
				o.In, o.Cause, o.Subject = name, cause, name
			}
			o.Time = o.Time.Add(time.Duration(int8(b)) * time.Hour)
			list := j.Observe(o)
			if b&16 != 0 {
				list = append(list, j.Tick(o.Time.Add(time.Duration(b)*time.Second))...)
			}
			for _, in := range list {
				line, err := in.Line()
				if err != nil || strings.Count(string(line), "\n") != 1 || strings.ContainsAny(in.Row(), "\n\x1b") {
					t.Fatalf("%q, %v", line, err)
				}
			}
		}
		if len(j.facts) != len(j.order) || len(j.matters) > len(j.order) {
			t.Fatalf("%d facts, %d in order, %d incidents", len(j.facts), len(j.order), len(j.matters))
		}
	})
}
