------------------------------ MODULE fanfold ------------------------------
(* Claim, deliver, commit, fold, relay, replay, failover: what the procedures in sql/fanfold_sql/procedures and the
   members of the fleet do together. docs/contract.md says what is left out.

   One action is one transaction or one step of a member. `act` names the step that was taken, with what it was given
   and what it answered, so that a behaviour of this model can be replayed against a real database; it decides nothing
   and is no part of the view. Offsets begin at 1. Index 0 is the fold (-1 in the tables). *)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS
    Members, Partitions, FanOuts,
    Size,       \* [FanOuts -> number of tasks]
    Folded,     \* the fan-outs that have a fold
    Rank,       \* [FanOuts -> 0..9], the order in which a batch names its fan-outs
    Base,       \* [FanOuts -> {branch: counter}], all of one thread
    Branches,
    Published,  \* [Partitions -> sequence of records], what producers have published
    Home,       \* [FanOuts -> the partition to which its outbox rows go]
    Budget,     \* how often each fault and each order of an operator may happen
    Removed     \* the guard that is taken out ("none": the procedures as they are)

VARIABLES
    log,        \* Kafka. It never forgets; nobody fails it over.
    db,         \* Postgres: all tables
    copy,       \* an older copy of it, as a replica that lags
    timeline,   \* how often the database was failed over; unknown to the procedures
    mem,        \* the members' memory: claims, the call on its way
    stray,      \* calls whose sender gave up on the answer, and that a server may still be executing
    unacked,    \* outbox rows that a relay has published and not yet acknowledged
    spent,      \* what is used of the Budget
    wrong,      \* guarantees broken by a step, where no state shows it
    act

vars == <<log, db, copy, timeline, mem, stray, unacked, spent, wrong, act>>
View == <<log, db, copy, timeline, mem, stray, unacked, spent, wrong>>

Min(S) == CHOOSE x \in S : \A y \in S : x <= y
Max(S) == CHOOSE x \in S : \A y \in S : x >= y
Tasks(f) == 1..Size[f]
Without(f, x) == [y \in DOMAIN f \ {x} |-> f[y]]
With(f, x, v) == [y \in DOMAIN f \cup {x} |-> IF y = x THEN v ELSE f[y]]
Guarded(guard) == Removed # guard

-----------------------------------------------------------------------------
(* What one result meets: settle_results.sql, and check_tasks.sql before the handler runs: they decide alike. *)

IsStale(d, f) == \E b \in DOMAIN Base[f] : d.clock[b] > Base[f][b]
Refuses(d, f) == IsStale(d, f) \/ d.fan[f].cancelled
IsDone(d, f) == d.fan[f].complete /\ (f \in Folded => d.res[f][0].run = d.fan[f].run)

Outcome(d, r) ==
    IF Guarded("clock") /\ IsStale(d, r.f) THEN "stale"
    ELSE IF Guarded("cancel") /\ d.fan[r.f].cancelled THEN "closed"
    ELSE IF Guarded("fold run") /\ r.i = 0 /\ (~d.fan[r.f].complete \/ d.fan[r.f].run # r.run) THEN "stale"
    ELSE IF d.res[r.f][r.i].run > r.run \/ (Guarded("same run") /\ d.res[r.f][r.i].run = r.run) THEN "duplicate"
    ELSE "applied"

(* Steps 3 to 6 of commit_results for one result. `effects`, `folds` and `wrong` are the auditor's, not the table's. *)
Apply(d, r) ==
    LET fan == d.fan[r.f]
        old == d.res[r.f][r.i]
        outcome == Outcome(d, r)
        counts == r.i > 0 /\ fan.rem > 0
            /\ IF outcome = "applied" THEN old.run = 0 \/ old.pending ELSE outcome = "duplicate" /\ ~Guarded("count")
        rem == IF counts THEN fan.rem - 1 ELSE fan.rem
        completes == counts /\ ~fan.complete /\ rem = 0
        queues == r.f \in Folded /\ (completes \/ (~Guarded("complete") /\ counts /\ rem = 1))
        faults ==
            (IF outcome = "applied" /\ r \in d.effects THEN {"1 one effect per task and run"} ELSE {})
            \cup (IF queues /\ <<r.f, fan.run>> \in d.folds THEN {"4 one fold per run"} ELSE {})
            \cup (IF outcome = "applied" /\ IsStale(d, r.f) THEN {"10 a stale base changes nothing"} ELSE {})
            \cup (IF outcome = "applied" /\ fan.cancelled THEN {"cancelled is final"} ELSE {})
            \cup (IF outcome = "applied" /\ r.i = 0 /\ (~fan.complete \/ fan.run # r.run)
                  THEN {"4 a fold of its own run only"} ELSE {})
        moved == outcome = "applied" /\ r.i > 0
    IN [db |-> [d EXCEPT
            !.res[r.f][r.i] = IF outcome = "applied" THEN [run |-> r.run, pending |-> FALSE] ELSE @,
            !.fan[r.f] = [@ EXCEPT !.open = @ \/ moved, !.rem = rem, !.complete = @ \/ completes],
            !.clock = IF moved
                THEN [b \in Branches |-> IF b \in DOMAIN Base[r.f] THEN Max({@[b], Base[r.f][b]}) ELSE @[b]] ELSE @,
            !.out = IF queues THEN @ \cup {[id |-> d.id + 1, f |-> r.f, i |-> 0, run |-> fan.run]} ELSE @,
            !.id = IF queues THEN @ + 1 ELSE @,
            !.effects = IF outcome = "applied" THEN @ \cup {r} ELSE @,
            !.folds = IF queues THEN @ \cup {<<r.f, fan.run>>} ELSE @],
        outcome |-> outcome, wrong |-> faults]

(* A batch equals its results one after another: fan-outs in the order given, folds first, of two runs the higher
   first. `entries` are pairs of partition and offset; the number orders copies of one record too. *)
Number(e) ==
    LET r == log[e[1]][e[2]]
    IN (((Rank[r.f] * 10 + r.i) * 10 + (9 - r.run)) * 10 + (CHOOSE n \in 0..9 : e[1] = Partitions[n + 1])) * 10 + e[2]

RECURSIVE ApplyAll(_, _, _, _)
ApplyAll(d, entries, outcomes, faults) ==
    IF entries = {} THEN [db |-> d, outcomes |-> outcomes, wrong |-> faults]
    ELSE LET first == CHOOSE e \in entries : \A o \in entries : Number(e) <= Number(o)
             step == Apply(d, log[first[1]][first[2]])
         IN ApplyAll(step.db, entries \ {first}, Append(outcomes, <<first[1], first[2], step.outcome>>),
                     faults \cup step.wrong)

-----------------------------------------------------------------------------
(* commit_results.sql as a whole: one transaction. *)

CommitSeq(part) == Len(part.commits)

FencedIn(d, call) == {p \in DOMAIN call.parts :
    LET h == d.part[p]  c == call.parts[p]
    IN Guarded("fence") /\ (h.epoch > c.epoch \/ (h.epoch = c.epoch /\ Guarded("owner") /\ h.owner # call.owner))}

RewoundIn(d, call) == {p \in DOMAIN call.parts :
    LET h == d.part[p]  c == call.parts[p]
    IN \/ Guarded("fence") /\ h.epoch < c.epoch
       \/ Guarded("seq") /\ h.epoch = c.epoch /\ h.owner = call.owner /\ CommitSeq(h) < c.seq}

BackIn(d, call) == {p \in DOMAIN call.parts : call.parts[p].next < d.part[p].next}

(* Guarantees 7 and 8, judged by what the database cannot see: in which timeline a claim or a commit was made. *)
Trespasses(d, call) ==
    (IF \E p \in DOMAIN call.parts : d.part[p].timeline # call.parts[p].timeline \/ d.part[p].epoch # call.parts[p].epoch
     THEN {"7 no commit under a superseded claim"} ELSE {})
    \cup
    (IF \E p \in DOMAIN call.parts :
            LET c == call.parts[p]
            IN c.seq > 0 /\ ~(CommitSeq(d.part[p]) >= c.seq /\ d.part[p].commits[c.seq] = c.seen)
     THEN {"8 no commit on a database that has rewound"} ELSE {})

Commit(d, call) ==
    LET fenced == FencedIn(d, call)
        rewound == RewoundIn(d, call)
        entries == UNION {{<<p, o>> : o \in call.parts[p].offs} : p \in DOMAIN call.parts}
        applied == ApplyAll(d, IF Guarded("together") THEN entries ELSE {}, <<>>, {})
        known == \E n \in DOMAIN applied.outcomes : applied.outcomes[n][3] = "duplicate"
        moves == Guarded("duplicate") \/ ~known
        refused(reply, lost, cause) ==
            [db |-> d, reply |-> reply, lost |-> lost, outcomes |-> <<>>, wrong |-> {}, cause |->
                IF \E p \in lost : d.part[p].epoch = call.parts[p].epoch THEN cause ELSE "epoch"]
    IN IF fenced # {} THEN refused("fenced", fenced, "owner")
       ELSE IF rewound # {} THEN refused("rewound", rewound, "seq")
       ELSE IF BackIn(d, call) # {} THEN refused("back", {}, "")
       ELSE [db |-> IF ~moves THEN applied.db ELSE [applied.db EXCEPT !.part = [p \in DOMAIN d.part |->
                 IF p \notin DOMAIN call.parts THEN d.part[p]
                 ELSE [d.part[p] EXCEPT !.next = call.parts[p].next, !.isl = call.parts[p].isl,
                                        !.commits = Append(@, timeline)]]],
             reply |-> "ok", lost |-> {}, cause |-> "nothing", outcomes |-> applied.outcomes,
             wrong |-> applied.wrong \cup Trespasses(d, call)]

-----------------------------------------------------------------------------
(* Members. A claim: pos is the next offset to deliver, running what handlers have, fin what is finished at or above
   next, pend what is finished with a result that is not yet committed, skip the same without a result, on the word of
   check_tasks. *)

Next0(c) == Min(c.running \cup {c.pos})
Trim(c) == [c EXCEPT !.fin = {o \in @ : o >= Next0(c)}]
NextOffset(c) == IF Guarded("island") THEN Next0(c) ELSE Max({c.pos} \cup {o + 1 : o \in c.fin})
Islands(c) == {o \in c.fin : o >= NextOffset(c)}
Owner(m) == <<m, mem[m].life>>
Fresh(life) == [life |-> life, hold |-> <<>>, call |-> <<>>]

(* What renew_partitions.sql tells an owner: whether its claim still stands. *)
Stands(m, p) ==
    LET c == mem[m].hold[p]  h == db.part[p]
    IN h.epoch = c.epoch /\ h.owner = Owner(m) /\ CommitSeq(h) >= c.seq
Held(p) == \E m \in Members : p \in DOMAIN mem[m].hold /\ Stands(m, p)

Spend(what) == spent[what] < Budget[what] /\ spent' = [spent EXCEPT ![what] = @ + 1]

Init ==
    LET empty == [
            part |-> [p \in {Partitions[n] : n \in DOMAIN Partitions} |->
                [epoch |-> 0, owner |-> <<"nobody", 0>>, timeline |-> 0, next |-> 1, isl |-> {}, commits |-> <<>>]],
            fan |-> [f \in FanOuts |->
                [open |-> FALSE, rem |-> Size[f], run |-> 1, complete |-> FALSE, cancelled |-> FALSE]],
            res |-> [f \in FanOuts |-> [i \in 0..Size[f] |-> [run |-> 0, pending |-> FALSE]]],
            clock |-> [b \in Branches |-> 0], out |-> {}, id |-> 0, effects |-> {}, folds |-> {}]
    IN /\ log = Published
       /\ db = empty /\ copy = empty /\ timeline = 0
       /\ mem = [m \in Members |-> Fresh(1)]
       /\ stray = {} /\ unacked = {}
       /\ spent = [what \in DOMAIN Budget |-> 0]
       /\ wrong = {}
       /\ act = [name |-> "begin", size |-> Size, base |-> Base, folded |-> Folded, log |-> Published]

(* claim_partition.sql. Kafka may give a partition to anybody; to take one that a living member holds is a fault. *)
Claim(m, p) ==
    /\ p \notin DOMAIN mem[m].hold
    /\ Guarded("settle") => \A n \in DOMAIN mem[m].call : p \notin DOMAIN mem[m].call[n].parts
    /\ IF Held(p) THEN Spend("steal") ELSE UNCHANGED spent
    /\ LET h == db.part[p]
           new == [h EXCEPT !.epoch = @ + 1, !.owner = Owner(m), !.timeline = timeline]
           claim == [epoch |-> new.epoch, timeline |-> timeline, seq |-> CommitSeq(h),
                     seen |-> IF CommitSeq(h) = 0 THEN 0 ELSE h.commits[CommitSeq(h)],
                     pos |-> h.next, running |-> {}, fin |-> h.isl, pend |-> {}, skip |-> {}, dirty |-> FALSE]
       IN /\ db' = [db EXCEPT !.part[p] = new]
          /\ mem' = [mem EXCEPT ![m].hold = With(@, p, claim)]
    /\ act' = [name |-> "claim", m |-> m, p |-> p]
    /\ UNCHANGED <<log, copy, timeline, stray, unacked, wrong>>

(* One record is delivered; check_tasks.sql says whether its handler has to run. *)
Deliver(m, p) ==
    /\ p \in DOMAIN mem[m].hold
    /\ LET c == mem[m].hold[p]
           o == c.pos
           verdict == IF o \in c.fin THEN "finished" ELSE Outcome(db, log[p][o])
       IN /\ o <= Len(log[p])
          /\ mem' = [mem EXCEPT ![m].hold[p] = Trim([c EXCEPT
                !.pos = o + 1,
                !.running = IF verdict = "applied" THEN @ \cup {o} ELSE @,
                !.fin = IF verdict = "applied" THEN @ ELSE @ \cup {o},
                !.skip = IF verdict \in {"applied", "finished"} THEN @ ELSE @ \cup {o},
                !.dirty = @ \/ verdict # "applied"])]
          /\ act' = [name |-> "deliver", m |-> m, p |-> p, o |-> o, verdict |-> verdict]
    /\ UNCHANGED <<log, db, copy, timeline, stray, unacked, spent, wrong>>

(* A handler ends: in any order, so what ends early becomes an island. *)
Finish(m, p, o) ==
    /\ p \in DOMAIN mem[m].hold
    /\ o \in mem[m].hold[p].running
    /\ mem' = [mem EXCEPT ![m].hold[p] = Trim([@ EXCEPT
            !.running = @ \ {o}, !.fin = @ \cup {o}, !.pend = @ \cup {o}, !.dirty = TRUE])]
    /\ act' = [name |-> "finish", m |-> m, p |-> p, o |-> o]
    /\ UNCHANGED <<log, db, copy, timeline, stray, unacked, spent, wrong>>

(* committer.py: whatever has finished goes with the next call; one call is on its way at a time. *)
Send(m) ==
    LET moved == {p \in DOMAIN mem[m].hold : mem[m].hold[p].dirty}
    IN /\ mem[m].call = <<>>
       /\ moved # {}
       /\ mem' = [mem EXCEPT
            ![m].call = <<[owner |-> Owner(m), reply |-> "none", lost |-> {}, after |-> <<>>, parts |-> [p \in moved |->
                LET c == mem[m].hold[p]
                IN [epoch |-> c.epoch, timeline |-> c.timeline, seq |-> c.seq, seen |-> c.seen,
                    next |-> NextOffset(c), isl |-> Islands(c), offs |-> c.pend, skip |-> c.skip]]]>>,
            ![m].hold = [p \in DOMAIN @ |-> [@[p] EXCEPT !.dirty = FALSE]]]
       /\ act' = [name |-> "send", m |-> m]
       /\ UNCHANGED <<log, db, copy, timeline, stray, unacked, spent, wrong>>

(* commit_results.sql: the server executes the call; the answer is on its way back. *)
Execute(m) ==
    /\ mem[m].call # <<>>
    /\ mem[m].call[1].reply = "none"
    /\ LET call == mem[m].call[1]
           done == Commit(db, call)
       IN /\ db' = done.db
          /\ wrong' = wrong \cup done.wrong
          /\ mem' = [mem EXCEPT ![m].call = <<[call EXCEPT !.reply = done.reply, !.lost = done.lost,
                !.after = [p \in DOMAIN call.parts |-> [seq |-> CommitSeq(done.db.part[p]), seen |-> timeline]]]>>]
          /\ act' = [name |-> "execute", m |-> m, reply |-> done.reply, cause |-> done.cause, lost |-> done.lost,
                     outcomes |-> done.outcomes]
    /\ UNCHANGED <<log, copy, timeline, stray, unacked, spent>>

(* The member reads the answer. What it lost by it is dropped; the rest of a refused batch goes with the next call. *)
Answer(m) ==
    /\ mem[m].call # <<>>
    /\ mem[m].call[1].reply # "none"
    /\ LET call == mem[m].call[1]
           mine(p) == p \in DOMAIN call.parts /\ call.parts[p].epoch = mem[m].hold[p].epoch
                        /\ call.parts[p].timeline = mem[m].hold[p].timeline
           kept == {p \in DOMAIN mem[m].hold : ~(p \in call.lost /\ mine(p))}
           after(p) == LET c == mem[m].hold[p]
                       IN IF ~mine(p) THEN c
                          ELSE IF call.reply = "ok"
                          THEN [c EXCEPT !.pend = @ \ call.parts[p].offs, !.skip = @ \ call.parts[p].skip,
                                         !.seq = call.after[p].seq, !.seen = call.after[p].seen]
                          ELSE [c EXCEPT !.dirty = TRUE]
       IN /\ mem' = [mem EXCEPT ![m].call = <<>>, ![m].hold = [p \in kept |-> after(p)]]
          /\ act' = [name |-> "answer", m |-> m]
    /\ UNCHANGED <<log, db, copy, timeline, stray, unacked, spent, wrong>>

(* renew_partitions.sql, once a second: how a member hears of a loss when it has nothing to commit. *)
Renew(m, p) ==
    /\ p \in DOMAIN mem[m].hold
    /\ ~Stands(m, p)
    /\ mem' = [mem EXCEPT ![m].hold = Without(@, p)]
    /\ act' = [name |-> "renew", m |-> m, p |-> p, cause |->
                IF db.part[p].epoch # mem[m].hold[p].epoch THEN "epoch"
                ELSE IF db.part[p].owner # Owner(m) THEN "owner" ELSE "seq"]
    /\ UNCHANGED <<log, db, copy, timeline, stray, unacked, spent, wrong>>

(* release_partitions.sql, after what had finished was committed. *)
Release(m, p) ==
    /\ p \in DOMAIN mem[m].hold
    /\ mem[m].call = <<>> /\ ~mem[m].hold[p].dirty
    /\ Spend("release")
    /\ mem' = [mem EXCEPT ![m].hold = Without(@, p)]
    /\ db' = IF db.part[p].epoch = mem[m].hold[p].epoch /\ db.part[p].owner = Owner(m)
             THEN [db EXCEPT !.part[p].owner = <<"nobody", 0>>] ELSE db
    /\ act' = [name |-> "release", m |-> m, p |-> p]
    /\ UNCHANGED <<log, copy, timeline, stray, unacked, wrong>>

-----------------------------------------------------------------------------
(* The relay: each row at least once. claim_outbox.sql, the broker's acknowledgement, then ack_outbox.sql. *)

Publish(row) ==
    /\ row \in db.out
    /\ IF row \in unacked THEN Spend("again") ELSE UNCHANGED spent
    /\ log' = [log EXCEPT ![Home[row.f]] = Append(@, [f |-> row.f, i |-> row.i, run |-> row.run])]
    /\ unacked' = unacked \cup {row}
    /\ act' = [name |-> "publish", row |-> row]
    /\ UNCHANGED <<db, copy, timeline, mem, stray, wrong>>

Acknowledge(row) ==
    /\ row \in (IF Guarded("publish") THEN unacked ELSE db.out)
    /\ db' = [db EXCEPT !.out = {r \in @ : r.id # row.id}]
    /\ unacked' = unacked \ {row}
    /\ act' = [name |-> "acknowledge", row |-> row]
    /\ UNCHANGED <<log, copy, timeline, mem, stray, spent, wrong>>

-----------------------------------------------------------------------------
(* Faults. *)

(* The answer is lost: the member makes the same call again (patience.py). *)
LoseAnswer(m) ==
    /\ mem[m].call # <<>>
    /\ mem[m].call[1].reply # "none"
    /\ Spend("lose")
    /\ mem' = [mem EXCEPT ![m].call[1] = [@ EXCEPT !.reply = "none", !.lost = {}, !.after = <<>>]]
    /\ act' = [name |-> "lose", m |-> m]
    /\ UNCHANGED <<log, db, copy, timeline, stray, unacked, wrong>>

(* A connection breaks while the server still works on the call: it may execute it later, whatever came in between. *)
Stray(m) ==
    /\ mem[m].call # <<>>
    /\ mem[m].call[1].reply = "none"
    /\ Spend("stray")
    /\ stray' = stray \cup {mem[m].call[1]}
    /\ act' = [name |-> "stray", m |-> m]
    /\ UNCHANGED <<log, db, copy, timeline, mem, unacked, wrong>>

ExecuteStray(call) ==
    /\ call \in stray
    /\ stray' = stray \ {call}
    /\ LET done == Commit(db, call)
       IN /\ db' = done.db
          /\ wrong' = wrong \cup done.wrong
          /\ act' = [name |-> "execute stray", owner |-> call.owner, reply |-> done.reply, lost |-> done.lost,
                     outcomes |-> done.outcomes]
    /\ UNCHANGED <<log, copy, timeline, mem, unacked, spent>>

(* kill -9 and a new process in its place, with a UUID of its own. Its call may have been executed before. *)
Crash(m) ==
    /\ Spend("crash")
    /\ mem' = [mem EXCEPT ![m] = Fresh(@.life + 1)]
    /\ act' = [name |-> "crash", m |-> m]
    /\ UNCHANGED <<log, db, copy, timeline, stray, unacked, wrong>>

(* The replica has caught up to here. *)
Backup ==
    /\ Spend("backup")
    /\ copy' = db
    /\ act' = [name |-> "backup"]
    /\ UNCHANGED <<log, db, timeline, mem, stray, unacked, wrong>>

(* It is promoted: commits that were acknowledged are gone, and numbers are given out again. What an old connection
   still carries dies with the old server. *)
Failover ==
    /\ Guarded("verdict") => \A m \in Members :
        /\ \A p \in DOMAIN mem[m].hold : mem[m].hold[p].skip = {}
        /\ \A n \in DOMAIN mem[m].call : \A p \in DOMAIN mem[m].call[n].parts : mem[m].call[n].parts[p].skip = {}
    /\ Spend("failover")
    /\ db' = copy
    /\ timeline' = timeline + 1
    /\ stray' = {}
    /\ unacked' = IF Guarded("forget") THEN {} ELSE unacked
    /\ act' = [name |-> "failover"]
    /\ UNCHANGED <<log, copy, mem, wrong>>

(* A producer that did not hear of its success publishes a task again, or a broker that lost its own memory does. *)
Republish(p, q, o) ==
    /\ o \in DOMAIN Published[p]
    /\ Spend("republish")
    /\ log' = [log EXCEPT ![q] = Append(@, Published[p][o])]
    /\ act' = [name |-> "republish", p |-> p, q |-> q, o |-> o]
    /\ UNCHANGED <<db, copy, timeline, mem, stray, unacked, wrong>>

-----------------------------------------------------------------------------
(* Orders of an operator or of an application. *)

(* reset_partition.sql: replay from the beginning. *)
Reset(p) ==
    /\ db.part[p].epoch > 0
    /\ Spend("reset")
    /\ db' = [db EXCEPT !.part[p] = [@ EXCEPT
            !.next = 1, !.isl = {}, !.epoch = @ + 1, !.timeline = timeline, !.owner = <<"nobody", 0>>]]
    /\ act' = [name |-> "reset", p |-> p, cause |-> IF db.part[p].isl = {} THEN "nothing" ELSE "islands"]
    /\ UNCHANGED <<log, copy, timeline, mem, stray, unacked, wrong>>

(* reopen_fan_out.sql and enqueue.sql in one transaction, for one task that has a result. *)
Rerun(f, i) ==
    LET fan == db.fan[f]
        old == db.res[f][i]
        run == IF Guarded("new run")
               THEN Max({fan.run + (IF fan.complete THEN 1 ELSE 0), old.run + 1}) ELSE fan.run
    IN /\ old.run > 0 /\ ~old.pending /\ ~Refuses(db, f)
       /\ Spend("rerun")
       /\ db' = [db EXCEPT
            !.res[f][i].pending = TRUE,
            !.fan[f] = [@ EXCEPT !.run = run, !.rem = @ + 1, !.complete = FALSE],
            !.out = @ \cup {[id |-> db.id + 1, f |-> f, i |-> i, run |-> run]},
            !.id = @ + 1]
       /\ act' = [name |-> "rerun", f |-> f, i |-> i, run |-> run]
       /\ UNCHANGED <<log, copy, timeline, mem, stray, unacked, wrong>>

(* cancel_fan_out.sql *)
Cancel(f) ==
    LET fan == db.fan[f]
        late == ~fan.cancelled /\ IsDone(db, f)
    IN /\ Spend("cancel")
       /\ db' = IF late THEN db ELSE [db EXCEPT !.fan[f].cancelled = TRUE]
       /\ act' = [name |-> "cancel", f |-> f, answer |-> IF late THEN "done" ELSE "cancelled"]
       /\ UNCHANGED <<log, copy, timeline, mem, stray, unacked, wrong>>

(* cancel_thread.sql: it knows the branches that its clock has, and the fan-outs that have a result. *)
CancelThread ==
    /\ Spend("cancel")
    /\ db' = [db EXCEPT
            !.clock = [b \in Branches |-> IF @[b] > 0 THEN @[b] + 1 ELSE 0],
            !.fan = [f \in FanOuts |->
                IF @[f].open /\ ~IsDone(db, f) THEN [@[f] EXCEPT !.cancelled = TRUE] ELSE @[f]]]
    /\ act' = [name |-> "cancel thread"]
    /\ UNCHANGED <<log, copy, timeline, mem, stray, unacked, wrong>>

(* advance_thread.sql: new work supersedes what was derived from an older base on this branch. *)
Advance(b) ==
    /\ Spend("advance")
    /\ db' = [db EXCEPT !.clock[b] = @ + 1]
    /\ act' = [name |-> "advance", b |-> b, to |-> db.clock[b] + 1]
    /\ UNCHANGED <<log, copy, timeline, mem, stray, unacked, wrong>>

-----------------------------------------------------------------------------
Places == {Partitions[n] : n \in DOMAIN Partitions}

(* What happens by itself, as long as anything is to be done. *)
Progress ==
    \/ \E m \in Members, p \in Places : ~Held(p) /\ Claim(m, p)
    \/ \E m \in Members, p \in Places : Deliver(m, p) \/ Renew(m, p)
    \/ \E m \in Members, p \in Places : p \in DOMAIN mem[m].hold /\ \E o \in mem[m].hold[p].running : Finish(m, p, o)
    \/ \E m \in Members : Send(m) \/ Execute(m) \/ Answer(m)
    \/ \E row \in db.out \ unacked : Publish(row)
    \/ \E row \in db.out \cup unacked : Acknowledge(row)

(* ENABLED Progress, spelled out: what TLC makes of ENABLED is too slow. *)
CanProgress ==
    \/ db.out # {} \/ unacked # {}
    \/ \E p \in Places : ~Held(p)
    \/ \E m \in Members :
        \/ mem[m].call # <<>>
        \/ \E p \in DOMAIN mem[m].hold :
            LET c == mem[m].hold[p]
            IN c.pos <= Len(log[p]) \/ c.running # {} \/ c.dirty \/ ~Stands(m, p)

Trouble ==
    \/ \E m \in Members, p \in Places : (Held(p) /\ Claim(m, p)) \/ Release(m, p)
    \/ \E m \in Members : LoseAnswer(m) \/ Stray(m) \/ Crash(m)
    \/ \E call \in stray : ExecuteStray(call)
    \/ \E row \in unacked : Publish(row)
    \/ Backup \/ Failover \/ CancelThread
    \/ \E p, q \in Places : \E o \in DOMAIN Published[p] : Republish(p, q, o)
    \/ \E p \in Places : Reset(p)
    \/ \E f \in FanOuts : Cancel(f) \/ \E i \in Tasks(f) : Rerun(f, i)
    \/ \E b \in Branches : Advance(b)

Next == Progress \/ Trouble
Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------
(* The guarantees, by their numbers in docs/guarantees.md. *)

(* 1, 7, 8, 10 and one half of 4 *)
NothingWrong == wrong = {}

(* 2 and 3 *)
CountdownIsResults == \A f \in FanOuts :
    db.fan[f].rem = Size[f] - Cardinality({i \in Tasks(f) : db.res[f][i].run > 0 /\ ~db.res[f][i].pending})

(* 4: complete exactly when everything is in, and then its fold is queued, for this very run. *)
FoldIffComplete == \A f \in FanOuts :
    /\ db.fan[f].complete <=> db.fan[f].rem = 0
    /\ (f \in Folded /\ db.fan[f].complete) <=> <<f, db.fan[f].run>> \in db.folds
    /\ db.res[f][0].run = db.fan[f].run => db.fan[f].complete
    /\ db.res[f][0].run <= db.fan[f].run

(* 5: what lies behind the progress has a result, a reason for having none, or another copy on its way. *)
Passed(p, o) == o < db.part[p].next \/ o \in db.part[p].isl
OnItsWay(r) ==
    \/ \E row \in db.out : row.f = r.f /\ row.i = r.i /\ row.run = r.run
    \/ \E p \in Places : \E o \in DOMAIN log[p] : log[p][o] = r /\ ~Passed(p, o)
Accounted(r) ==
    LET fan == db.fan[r.f]
    IN \/ db.res[r.f][r.i].run >= r.run
       \/ r.i = 0 /\ ~(fan.complete /\ fan.run = r.run)
       \/ Refuses(db, r.f)
       \/ OnItsWay(r)
NothingSkipped == \A p \in Places : \A o \in DOMAIN log[p] : Passed(p, o) => Accounted(log[p][o])

(* 6: within a timeline, and but for a reset, which raises the epoch. *)
NothingGoesBack == [][
    timeline' = timeline => \A p \in Places :
        LET h == db.part[p]  n == db'.part[p]
        IN n.epoch >= h.epoch /\ CommitSeq(n) >= CommitSeq(h) /\ (n.epoch = h.epoch => n.next >= h.next)]_vars

(* 10, the other half: a clock is never behind a base it has accepted. *)
ClockCoversBases == \A f \in FanOuts : db.fan[f].open => \A b \in DOMAIN Base[f] : db.clock[b] >= Base[f][b]

(* No member is told that its own progress would go back: it would stop. *)
NobodyGoesBack == \A m \in Members : mem[m].call # <<>> => mem[m].call[1].reply # "back"

(* 14: once nothing happens by itself any more, the log is read to its end and every fan-out is folded or refused. *)
Settled ==
    /\ \A p \in Places : db.part[p].next = Len(log[p]) + 1
    /\ db.out = {}
    /\ \A f \in FanOuts : IsDone(db, f) \/ Refuses(db, f)
AtRestAllIsDone == CanProgress \/ Settled

(* And it does come to rest, if what can happen by itself does not wait for ever: WF_vars(Progress), spelled out. *)
ComesToRest == ([]<>~CanProgress \/ []<><<Progress>>_vars) => <>[]Settled
=============================================================================
