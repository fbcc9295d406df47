package inventory

import (
	"fmt"
	"testing"
	"time"

	"waxseal/agent/mirror"
)

// book is a ledger whose words are kept.
func book(limit int) (*ledger, *[]string) {
	var said []string
	return newLedger(limit, func(o mirror.Observation) {
		word := o.Subject
		if o.Netns != "" {
			word = o.Netns + ":" + word
		}
		if o.Gone {
			word += " gone"
		}
		if o.Baseline {
			word += " baseline"
		}
		said = append(said, word)
	}), &said
}

func open(subject string) mirror.Observation {
	return mirror.Observation{Kind: mirror.Socket, Subject: subject}
}

func harmless(subject string) mirror.Observation {
	return mirror.Observation{Kind: mirror.Socket, Subject: subject, Harmless: true}
}

func TestTheLedgerTellsEachDifferenceOnce(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(100, 0).Add(time.Duration(ms) * time.Millisecond) }
	type look struct {
		ms   int
		seen []mirror.Observation
	}
	one := mirror.Observation{Kind: mirror.Namespace, Subject: "n"}
	named := one
	named.Netns = "blue"
	for _, c := range []struct {
		name  string
		looks []look
		want  string
	}{
		{"there from the start", []look{{0, []mirror.Observation{open("a")}}, {100, []mirror.Observation{open("a")}}}, "[a baseline]"},
		{"twice in one look", []look{{0, nil}, {100, []mirror.Observation{harmless("a"), harmless("a")}}}, "[a]"},
		{"gets its filter while it settles", []look{{0, nil}, {100, []mirror.Observation{open("a")}}, {105, []mirror.Observation{harmless("a")}}, {200, []mirror.Observation{harmless("a")}}}, "[a]"},
		{"settles", []look{{0, nil}, {100, []mirror.Observation{open("a")}}, {105, []mirror.Observation{open("a")}}, {121, []mirror.Observation{open("a")}}}, "[a]"},
		{"vanishes while it settles", []look{{0, nil}, {100, []mirror.Observation{open("a")}}, {105, nil}}, "[a a gone]"},
		{"filter changes later", []look{{0, []mirror.Observation{harmless("a")}}, {100, []mirror.Observation{open("a")}}, {200, nil}}, "[a baseline a a gone]"},
		{"gets a name", []look{{0, []mirror.Observation{one}}, {100, []mirror.Observation{named}}, {200, nil}}, "[n baseline n gone blue:n blue:n gone]"},
		{"question of a datagram socket", []look{{0, nil}, {100, []mirror.Observation{{Kind: mirror.Listener, Subject: "u", Cause: "udp listener"}}}, {1100, nil}}, "[]"},
	} {
		l, said := book(10)
		for i, look := range c.looks {
			l.note("scope", at(look.ms), look.seen, i == 0)
		}
		if got := fmt.Sprint(*said); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestALedgerThatIsFullSaysSoOnceAndWhenThereIsRoom(t *testing.T) {
	l, said := book(2)
	now := time.Unix(100, 0)
	l.note("s", now, nil, true)
	l.note("s", now, []mirror.Observation{harmless("a"), harmless("b"), harmless("c"), harmless("d")}, false)
	l.note("s", now, []mirror.Observation{harmless("a"), harmless("b"), harmless("e")}, false)
	l.note("s", now, nil, false)
	want := "[a b inventory/socket a gone b gone inventory/socket gone]"
	if got := fmt.Sprint(*said); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if l.count[mirror.Socket] != 0 || len(l.known) != 0 {
		t.Errorf("it keeps %v and %v", l.count, l.known)
	}
}
