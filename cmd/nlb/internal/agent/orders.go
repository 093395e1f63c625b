//go:build linux

package agent

// Orders: what admins ask of a running agent, as values, and as JSON.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"nlb/cmd/nlb/internal/web"
	"nlb/lb"
)

// Order is what an admin wants of a backend.
type Order struct {
	Profile, Service, Backend string
	// Order is lb.NoOrder to enable the backend again.
	Order lb.Order
	// For is how long it stands, in whole seconds; 0: until it is taken back.
	For time.Duration
}

// MaxFor is the longest time that an order can be given for.
const MaxFor = 365 * 24 * time.Hour

// orderWords are the orders as they are typed.
var orderWords = map[string]lb.Order{"drain": lb.OrderDrain, "disable": lb.OrderDisable, "enable": lb.NoOrder}

// orderValue is an order as JSON.
type orderValue struct {
	Profile string `json:"profile"`
	Service string `json:"service"`
	Backend string `json:"backend"`
	Order   string `json:"order"`         // drain, disable, enable
	For     string `json:"for,omitempty"` // 30m
}

// String is what the order says: drain shop/web/b1 for 30m0s.
func (o Order) String() string {
	s := o.Word() + " " + o.Profile + "/" + o.Service + "/" + o.Backend
	if o.For > 0 {
		s += " for " + o.For.String()
	}
	return s
}

// Word is drain, disable or enable.
func (o Order) Word() string {
	for word, order := range orderWords {
		if order == o.Order {
			return word
		}
	}
	return "enable"
}

// given is what is known of a backend that was given the order.
func (o Order) given(is lb.Standing, by string, now time.Time) lb.Standing {
	is.Order, is.By, is.Until = o.Order, by, time.Time{}
	switch {
	case o.Order == lb.NoOrder:
		is.By = ""
	case o.For > 0:
		is.Until = now.Add(o.For + time.Second - 1).Truncate(time.Second).UTC()
	}
	return is
}

// MarshalJSON writes what ParseOrder reads.
func (o Order) MarshalJSON() ([]byte, error) {
	v := orderValue{Profile: o.Profile, Service: o.Service, Backend: o.Backend, Order: o.Word()}
	if o.For > 0 {
		v.For = o.For.String()
	}
	return json.Marshal(v)
}

// ParseOrder reads an order. Nothing may be in it that an order does not have.
func ParseOrder(b []byte) (Order, error) {
	var v orderValue
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return Order{}, &RefusedError{Message: "no order: " + err.Error(), Hint: `want {"profile": "shop", "service": "web", "backend": "b1", "order": "drain", "for": "30m"}`}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Order{}, &RefusedError{Message: "no order: something follows it", Hint: "want one order in a request"}
	}
	return NewOrder(v.Order, v.Profile+"/"+v.Service+"/"+v.Backend, v.For)
}

// NewOrder makes an order of words: drain, shop/web/b1, 30m. An empty duration is
// until it is taken back.
func NewOrder(word, target, duration string) (Order, error) {
	order, ok := orderWords[word]
	if !ok {
		return Order{}, &RefusedError{Message: fmt.Sprintf("unknown order %q", word), Hint: "want drain, disable or enable"}
	}
	parts := strings.SplitN(target, "/", 3) // the name of a backend may be an address
	if len(parts) < 3 || parts[0] == "" || parts[1] == "" || parts[2] == "" {
		return Order{}, &RefusedError{Message: fmt.Sprintf("%q is no backend", target), Hint: "want PROFILE/SERVICE/BACKEND"}
	}
	o := Order{Profile: parts[0], Service: parts[1], Backend: parts[2], Order: order}
	if duration == "" {
		return o, nil
	}
	d, err := time.ParseDuration(duration)
	if err != nil || d < time.Second || d > MaxFor || d%time.Second != 0 {
		return Order{}, &RefusedError{Message: fmt.Sprintf("%q is no time for an order", duration), Hint: "want whole seconds, 1s to 8760h, such as 30m"}
	}
	if order == lb.NoOrder {
		return Order{}, &RefusedError{Message: "to enable a backend takes no time", Hint: "it stays enabled until it is drained or disabled"}
	}
	o.For = d
	return o, nil
}

// Ask says what a request is about.
type Ask uint8

// What may be asked.
const (
	AskHealth  Ask = iota // whether the agent goes on at all
	AskStatus             // how it is: the value is a Status, or has its fields
	AskReload             // to read the files again
	AskOrder              // to obey an order
	AskBackend            // what is known of a backend: the value is a *view.Known
	AskService            // the same of all backends of a service: a map of them by names
	AskServing            // which services have somebody to serve; Order.Profile names them: shop or shop/web, empty: all
)

// Request is what somebody asks through the socket.
type Request struct {
	Ask   Ask
	Order Order  // of AskOrder; of AskBackend and AskService it names what is meant
	By    string // who asks: a name as lb.Standing has it
	UID   uint32
	// Reply takes one value, and never blocks.
	Reply chan<- Reply
}

// Reply is the answer. A value must not change any more.
type Reply struct {
	Value any // for JSON
	Err   error
}

// RefusedError is that of the web: why something is not done, and what helps.
type RefusedError = web.RefusedError

// Status is how an agent is.
type Status struct {
	Table     string   `json:"table"`
	Namespace string   `json:"namespace"` // the network namespace
	Profiles  []string `json:"profiles"`  // that it keeps, sorted
	Status    string   `json:"status"`    // in a sentence, as systemctl status has it
	Trouble   string   `json:"trouble"`   // the same, where something does not work; else empty
	AllowExec bool     `json:"allow-exec"`
	Fleet     bool     `json:"fleet"`  // it has its profiles from one
	Groups    []int    `json:"groups"` // of its process
	// Alone says that the table has these profiles, as they were applied, and nothing
	// else; Program stands for the file of the agent's program.
	Alone   bool   `json:"alone"`
	Program string `json:"program"`
	// Changes is how often what it shows has changed.
	Changes uint64 `json:"changes"`
}

// Done is what became of a request.
type Done struct {
	Done string `json:"done"` // in words
}
