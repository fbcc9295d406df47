package authorised

import (
	"errors"
	"fmt"
	"slices"

	"waxseal/measure/manifest/sealed"
)

// ApproversFormat is the value of Approvers.Format.
const ApproversFormat = "waxseal-approvers-1"

// MaxApproversSize is the largest file of approvers in bytes.
const MaxApproversSize = MaxSize

// MaxApprovers is how many people one file may name.
const MaxApprovers = 32

// Approvers is whom a reader believes. It comes from elsewhere than the file of
// mirrors: how many must sign is not for the signers to say.
type Approvers struct {
	Format    string     `json:"format"`
	Approvals int        `json:"approvals"` // how many different people must have signed a list
	Least     uint64     `json:"least"`     // the smallest number of a file that is taken
	People    []Approver `json:"approvers"`
}

// Approver is one person who may sign.
type Approver struct {
	Name string `json:"name"`
	Keys string `json:"keys"` // the two public keys, as sealed.Trust.PEM writes them
}

// ErrApprovers means that a file does not say whom to believe.
var ErrApprovers = errors.New("file of approvers is not acceptable")

// ParseApprovers reads the file that Encode writes.
func ParseApprovers(data []byte) (Approvers, error) {
	var a Approvers
	if err := parse(data, &a, func() ([]byte, error) { return a.Encode() }); err != nil {
		return Approvers{}, fmt.Errorf("%w: %w", ErrApprovers, err)
	}
	return a, nil
}

// Encode returns the file that ParseApprovers reads.
func (a Approvers) Encode() ([]byte, error) {
	if err := a.Check(); err != nil {
		return nil, err
	}
	return encode(a)
}

// Check tells whether the approvers can be believed: each has a name and keys
// of his own, and there are enough of them.
func (a Approvers) Check() error {
	if a.Format != ApproversFormat {
		return fmt.Errorf("%w: format is %q: need %q", ErrApprovers, a.Format, ApproversFormat)
	}
	if a.Approvals < 1 || a.Approvals > len(a.People) || len(a.People) > MaxApprovers {
		return fmt.Errorf("%w: %d approvals of %d approvers: need at least one, and as many approvers, at most %d",
			ErrApprovers, a.Approvals, len(a.People), MaxApprovers)
	}
	keys, err := a.trust()
	if err != nil {
		return err
	}
	for i, p := range a.People {
		if err := checkText("name", p.Name, maxName); err != nil {
			return fmt.Errorf("%w: %w", ErrApprovers, err)
		}
		for k := range i {
			if a.People[k].Name == p.Name || keys[k].Shares(keys[i]) {
				return fmt.Errorf("%w: %q and %q are one", ErrApprovers, a.People[k].Name, p.Name)
			}
		}
	}
	return nil
}

func (a Approvers) trust() ([]sealed.Trust, error) {
	var out []sealed.Trust
	for _, p := range a.People {
		t, err := sealed.ParseTrust([]byte(p.Keys))
		if err != nil {
			return nil, fmt.Errorf("%w: %q: %w", ErrApprovers, p.Name, err)
		}
		out = append(out, t)
	}
	return out, nil
}

// open returns the payload of a sealed file and who signed it.
func (a Approvers) open(kind string, file []byte) (payload []byte, who string, err error) {
	keys, err := a.trust()
	if err != nil {
		return nil, "", err
	}
	for i, k := range keys {
		payload, err = sealed.Open(kind, file, k)
		if err == nil {
			return payload, a.People[i].Name, nil
		}
		if !errors.Is(err, sealed.ErrSignature) {
			return nil, "", err
		}
	}
	return nil, "", fmt.Errorf("%w: by none of the approvers", sealed.ErrSignature)
}

// Add returns the approvers with one more.
func (a Approvers) Add(name string, keys sealed.Trust) (Approvers, error) {
	pem, err := keys.PEM()
	if err != nil {
		return a, err
	}
	a.People = append(slices.Clone(a.People), Approver{name, string(pem)})
	return a, a.Check()
}
