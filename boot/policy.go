package boot

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"waxseal/boot/canon"
	"waxseal/measure"
)

// PolicyFormat is the value of Policy.Format that this package reads.
const PolicyFormat = "waxseal-policy-1"

// Limits of a policy file.
const (
	MaxPolicy = 64 << 10 // bytes of the file
	maxItems  = 256      // items in the file
	maxPaths  = 32       // paths of one item
	maxStop   = 10 * time.Minute
)

// ErrPolicy means that a policy file is missing or malformed.
var ErrPolicy = errors.New("measurement policy")

// Policy says what is measured before the hand-over, and in which order.
type Policy struct {
	Format  string   `json:"format"`  // PolicyFormat
	Profile string   `json:"profile"` // PCR profile, for example waxseal-1
	Budget  Duration `json:"budget"`  // time after which no further thing is started
	Stop    Duration `json:"stop"`    // time after which the thing in work is abandoned; at least Budget
	Handoff string   `json:"handoff"` // how the boot goes on: switch_root or kexec
	Items   []Item   `json:"items"`   // in the order in which they are recorded
}

// Kind is the kind of an item: how it is found, and what it is called.
type Kind string

// The kinds of items.
const (
	Cmdline   Kind = "cmdline"   // cmdline/live: the command line of the running kernel
	Agent     Kind = "agent"     // agent/exe: the agent's own executable
	File      Kind = "file"      // CLASS/VOLUME/PATH: one file, its bytes as they are
	UKI       Kind = "uki"       // a unified kernel image: its sections, and the whole file
	Identity  Kind = "identity"  // identity/serial: the serial number
	Aggregate Kind = "aggregate" // aggregate/boot?c=BANK: PCR 0 to 9
	Volume    Kind = "volume"    // CLASS/FORM/VOLUME: the used bytes of a volume
	Config    Kind = "config"    // config/SOURCE/PATH?c=FORM: configuration files
	Startup   Kind = "startup"   // startup/VOLUME/PATH?c=FORM: files that run or take effect at boot
	Owner     Kind = "owner"     // owner/ca: the trust anchors of the owner
	Modules   Kind = "modules"   // module/live: names of the kernel modules that are loaded
	Programs  Kind = "programs"  // bpf/live: BPF programs that are loaded
)

// Item is one line of the policy. Which fields a kind needs and which it may
// have is in the table kinds; any other field is an error.
type Item struct {
	Kind       Kind       `json:"kind"`
	Class      string     `json:"class,omitempty"`       // file and volume: class of the record, which gives its PCR
	Volume     string     `json:"volume,omitempty"`      // name of a volume or tree of the source
	Path       string     `json:"path,omitempty"`        // relative to the root of the volume; config: may be a pattern
	Paths      []string   `json:"paths,omitempty"`       // startup: paths and patterns
	Source     string     `json:"source,omitempty"`      // config: second part of the name, for example uci
	Form       string     `json:"form,omitempty"`        // volume: squashfs or raw
	Tail       string     `json:"tail,omitempty"`        // volume, squashfs: "erased" checks the bytes after the used ones, "any" (default) does not look
	Canon      canon.Form `json:"canon,omitempty"`       // config, startup: canonical form; startup defaults to text1
	MaxSize    int64      `json:"max_size,omitempty"`    // largest file in bytes; 0 is 1 MiB for text, 256 MiB for file and uki
	MaxEntries int        `json:"max_entries,omitempty"` // largest number of directory entries looked at; 0 is 10,000
}

// Defaults and bounds of the limits of an item.
const (
	defaultTextSize = 1 << 20
	maxTextSize     = 8 << 20
	defaultFileSize = 256 << 20
	maxFileSize     = 4 << 30
	defaultEntries  = 10_000
	maxEntries      = 100_000
)

type fields struct{ need, may string }

var kinds = map[Kind]fields{
	Cmdline:   {},
	Agent:     {},
	Identity:  {},
	Aggregate: {},
	File:      {need: "class volume path", may: "max_size"},
	UKI:       {need: "volume path", may: "max_size"},
	Volume:    {need: "class volume form", may: "tail"},
	Config:    {need: "volume path canon", may: "source max_size max_entries"},
	Startup:   {need: "volume paths", may: "canon max_size max_entries"},
	Owner:     {need: "volume path", may: "max_size"},
	Modules:   {},
	Programs:  {},
}

// Duration is a time.Duration that is written as "2s" or "1m30s".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// ParsePolicy reads a policy file. Unknown, doubled and differently spelled
// keys are errors, as is everything that Check refuses. Errors are ErrPolicy.
func ParsePolicy(raw []byte) (Policy, error) {
	if len(raw) > MaxPolicy {
		return Policy{}, fmt.Errorf("%w of %d bytes: at most %d", ErrPolicy, len(raw), MaxPolicy)
	}
	var p Policy
	if err := json.Unmarshal(raw, &p, json.RejectUnknownMembers(true)); err != nil {
		return Policy{}, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	if err := p.Check(); err != nil {
		return Policy{}, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	return p, nil
}

// Check tells whether the policy can be carried out, and whether no two items
// can give records of the same name.
func (p Policy) Check() error {
	if p.Format != PolicyFormat {
		return fmt.Errorf("format is %q: need %q", p.Format, PolicyFormat)
	}
	if _, err := measure.ParseProfile(p.Profile); err != nil {
		return err
	}
	if p.Budget <= 0 || p.Stop < p.Budget || time.Duration(p.Stop) > maxStop {
		return fmt.Errorf("budget %v, stop %v: need 0 < budget ≤ stop ≤ %v", time.Duration(p.Budget), time.Duration(p.Stop), maxStop)
	}
	if p.Handoff != "switch_root" && p.Handoff != "kexec" {
		return fmt.Errorf("handoff %q is neither switch_root nor kexec", p.Handoff)
	}
	if len(p.Items) == 0 || len(p.Items) > maxItems {
		return fmt.Errorf("%d items: need 1 to %d", len(p.Items), maxItems)
	}
	taken := names{}
	for i, it := range p.Items {
		if err := it.check(); err != nil {
			return fmt.Errorf("item %d (%s): %w", i, it.Kind, err)
		}
		if err := taken.claim(it); err != nil {
			return fmt.Errorf("item %d (%s): %w", i, it.Kind, err)
		}
	}
	return nil
}

func (it Item) check() error {
	allowed, ok := kinds[it.Kind]
	if !ok {
		return errors.New("unknown kind")
	}
	if err := allowed.check(it.set()); err != nil {
		return err
	}
	if it.MaxSize < 0 || it.MaxSize > maxFileSize || it.MaxEntries < 0 || it.MaxEntries > maxEntries {
		return fmt.Errorf("max_size %d, max_entries %d: at most %d and %d", it.MaxSize, it.MaxEntries, int64(maxFileSize), maxEntries)
	}
	if it.isText() && it.MaxSize > maxTextSize {
		return fmt.Errorf("max_size %d: at most %d for what is read as a whole", it.MaxSize, maxTextSize)
	}
	if it.Canon != "" && !it.Canon.Known() {
		return fmt.Errorf("canon %q is not a canonical form", it.Canon)
	}
	if err := it.checkClass(); err != nil {
		return err
	}
	return it.checkPlace()
}

// isText tells whether the files of the item are read as a whole.
func (it Item) isText() bool {
	return it.Kind == Config || it.Kind == Startup || it.Kind == Owner
}

// set lists the names of the fields that are not zero, but for kind.
func (it Item) set() []string {
	var s []string
	for name, is := range map[string]bool{
		"class": it.Class != "", "volume": it.Volume != "", "path": it.Path != "", "paths": len(it.Paths) > 0,
		"source": it.Source != "", "form": it.Form != "", "tail": it.Tail != "", "canon": it.Canon != "",
		"max_size": it.MaxSize != 0, "max_entries": it.MaxEntries != 0,
	} {
		if is {
			s = append(s, name)
		}
	}
	slices.Sort(s)
	return s
}

func (f fields) check(set []string) error {
	need, may := strings.Fields(f.need), strings.Fields(f.may)
	for _, n := range need {
		if !slices.Contains(set, n) {
			return fmt.Errorf("field %s is missing", n)
		}
	}
	for _, n := range set {
		if !slices.Contains(need, n) && !slices.Contains(may, n) {
			return fmt.Errorf("field %s does not belong to this kind", n)
		}
	}
	return nil
}

var (
	fileClasses   = []string{"bootloader", "kernel", "initramfs", "dtb", "peripheral", "keys", "module"}
	volumeClasses = []string{"bootloader", "kernel", "initramfs", "rootfs", "peripheral"}
	words         = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,31}$`)
	reserved      = []string{"uki", "live", "exe", "squashfs", "raw"} // second parts of names that kinds other than file give
)

func (it Item) checkClass() error {
	switch it.Kind {
	case File:
		if !slices.Contains(fileClasses, it.Class) {
			return fmt.Errorf("class %q is not one of %s", it.Class, strings.Join(fileClasses, ", "))
		}
	case Volume:
		if !slices.Contains(volumeClasses, it.Class) {
			return fmt.Errorf("class %q is not one of %s", it.Class, strings.Join(volumeClasses, ", "))
		}
		if it.Form != "squashfs" && it.Form != "raw" {
			return fmt.Errorf("form %q is neither squashfs nor raw", it.Form)
		}
		if it.Tail != "" && it.Tail != "any" && (it.Tail != "erased" || it.Form != "squashfs") {
			return fmt.Errorf("tail %q: need any, or erased with form squashfs", it.Tail)
		}
	}
	return nil
}

func (it Item) checkPlace() error {
	for _, w := range []string{it.Volume, it.Source} {
		if w != "" && !words.MatchString(w) {
			return fmt.Errorf("name %q: need %s", w, words)
		}
		if slices.Contains(reserved, w) {
			return fmt.Errorf("name %q is reserved", w)
		}
	}
	if len(it.Paths) > maxPaths {
		return fmt.Errorf("%d paths: at most %d", len(it.Paths), maxPaths)
	}
	for _, p := range it.patterns() {
		if err := checkPath(p); err != nil {
			return err
		}
		if isPattern(p) && it.Kind != Config && it.Kind != Startup {
			return fmt.Errorf("path %q is a pattern: only config and startup take patterns", p)
		}
	}
	return nil
}

// patterns returns the item's paths, whichever field they stand in.
func (it Item) patterns() []string {
	if it.Path != "" {
		return []string{it.Path}
	}
	return it.Paths
}

func (it Item) maxSize() int64 {
	switch {
	case it.MaxSize != 0:
		return it.MaxSize
	case it.Kind == File || it.Kind == UKI:
		return defaultFileSize
	}
	return defaultTextSize
}

func (it Item) maxEntries() int {
	if it.MaxEntries != 0 {
		return it.MaxEntries
	}
	return defaultEntries
}

func (it Item) canon() canon.Form {
	if it.Canon == "" {
		return canon.Text1
	}
	return it.Canon
}

// checkPath accepts relative, clean paths of printable ASCII, with patterns
// of path.Match in any part and ** as the last part.
func checkPath(p string) error {
	if p == "." || path.IsAbs(p) || path.Clean(p) != p || strings.HasPrefix(p, "../") || p == ".." {
		return fmt.Errorf("path %q is not relative and clean", p)
	}
	for _, b := range []byte(p) {
		if b < 0x21 || b > 0x7e || b == '\\' {
			return fmt.Errorf("path %q: byte 0x%02x", p, b)
		}
	}
	parts := strings.Split(p, "/")
	for i, part := range parts {
		if strings.Contains(part, "**") && (part != "**" || i != len(parts)-1) {
			return fmt.Errorf("path %q: ** is only the last part", p)
		}
		if _, err := path.Match(part, ""); err != nil {
			return fmt.Errorf("path %q: %w", p, err)
		}
	}
	return nil
}

func isPattern(p string) bool { return strings.ContainsAny(p, "*?[") }

// names keeps who gives which record name: the names of literal items, and
// the prefixes below which a pattern may give any name.
type names map[string]bool

func (n names) claim(it Item) error {
	open := slices.ContainsFunc(it.patterns(), isPattern)
	prefix := it.prefix() + "/"
	if n[prefix+"*"] || (open && n[prefix]) {
		return fmt.Errorf("another item gives records %s…: merge the two or give one another source", prefix)
	}
	if open {
		n[prefix+"*"] = true
	}
	for _, name := range it.claims() {
		if n[name] {
			return fmt.Errorf("another item gives the record %s", name)
		}
		n[name] = true
	}
	n[prefix] = true
	return nil
}
