----------------------------- MODULE scenarios -----------------------------
(* The small worlds in which fanfold.tla is checked exhaustively, and the large one that behaviours are drawn from. *)
EXTENDS fanfold, TLC

CONSTANTS Scenario, m1, m2, SoughtAction, SoughtAnswer

None == [steal |-> 0, release |-> 0, lose |-> 0, stray |-> 0, crash |-> 0, backup |-> 0, failover |-> 0, again |-> 0,
         republish |-> 0, reset |-> 0, rerun |-> 0, cancel |-> 0, advance |-> 0]
Task(f, i) == [f |-> f, i |-> i, run |-> 1]
Two == [members |-> {m1, m2}, size |-> [f1 |-> 2], base |-> [f1 |-> [a |-> 1]], folded |-> {},
        partitions |-> <<"p1">>, published |-> [p1 |-> <<Task("f1", 1), Task("f1", 2)>>], home |-> [f1 |-> "p1"],
        budget |-> None]

World ==
    CASE Scenario = "handover" ->  \* Members come and go: fences, zombies, answers that are lost, islands.
            [Two EXCEPT !.budget = [None EXCEPT !.steal = 1, !.lose = 1, !.crash = 1]]
      [] Scenario = "stray" ->  \* A call is executed long after its sender gave it up.
            [Two EXCEPT !.budget = [None EXCEPT !.steal = 1, !.stray = 1, !.release = 1]]
      [] Scenario = "failover" ->  \* Epochs are given out again, zombies of both timelines meet.
            [Two EXCEPT !.budget = [None EXCEPT !.steal = 1, !.backup = 1, !.failover = 1]]
      [] Scenario = "replay" ->  \* Everything is read again, a task is run again, its fan-out folds again.
            [Two EXCEPT !.members = {m1}, !.folded = {"f1"},
                        !.budget = [None EXCEPT !.reset = 1, !.rerun = 1]]
      [] Scenario = "twice" ->  \* Producers and relays publish again what they have published.
            [Two EXCEPT !.members = {m1}, !.folded = {"f1"},
                        !.budget = [None EXCEPT !.republish = 1, !.again = 1]]
      [] Scenario = "clocks" ->  \* f2 supersedes f1 on branch a, somebody else supersedes f2 on branch b; and cancel.
            [members |-> {m1}, size |-> [f1 |-> 2, f2 |-> 1],
             base |-> [f1 |-> [a |-> 1], f2 |-> [a |-> 2, b |-> 1]], folded |-> {"f1"},
             partitions |-> <<"p1", "p2">>,
             published |-> [p1 |-> <<Task("f1", 1), Task("f1", 2)>>, p2 |-> <<Task("f2", 1)>>],
             home |-> [f1 |-> "p1", f2 |-> "p2"],
             budget |-> [None EXCEPT !.cancel = 1, !.advance = 1]]
      [] Scenario = "partitions" ->  \* A batch spans two partitions, and one of them is lost.
            [Two EXCEPT !.partitions = <<"p1", "p2">>, !.folded = {"f1"},
                        !.published = [p1 |-> <<Task("f1", 1)>>, p2 |-> <<Task("f1", 2)>>],
                        !.budget = [None EXCEPT !.steal = 1]]
      [] Scenario = "outbox" ->  \* A relay outlives the database whose rows it published.
            [members |-> {m1}, size |-> [f1 |-> 1, f2 |-> 1], base |-> [f1 |-> [a |-> 1], f2 |-> [b |-> 1]],
             folded |-> {"f1", "f2"}, partitions |-> <<"p1">>,
             published |-> [p1 |-> <<Task("f1", 1), Task("f2", 1)>>], home |-> [f1 |-> "p1", f2 |-> "p1"],
             budget |-> [None EXCEPT !.failover = 1]]
      [] Scenario = "everything" ->  \* Too large to be searched; behaviours are drawn from it.
            [members |-> {m1, m2}, size |-> [f1 |-> 2, f2 |-> 2],
             base |-> [f1 |-> [a |-> 1], f2 |-> [a |-> 1, b |-> 1]], folded |-> {"f1", "f2"},
             partitions |-> <<"p1", "p2">>,
             published |-> [p1 |-> <<Task("f1", 1), Task("f2", 1)>>, p2 |-> <<Task("f1", 2), Task("f2", 2)>>],
             home |-> [f1 |-> "p1", f2 |-> "p2"],
             budget |-> [what \in DOMAIN None |-> 1]]

WorldMembers == World.members
WorldPartitions == World.partitions
WorldFanOuts == DOMAIN World.size
WorldSize == World.size
WorldFolded == World.folded
WorldRank == [f \in {"f1", "f2"} |-> IF f = "f1" THEN 1 ELSE 2]
WorldBase == World.base
WorldBranches == {"a", "b"}
WorldPublished == World.published
WorldHome == World.home
WorldBudget == World.budget

(* Broken on purpose: TLC then shows a shortest behaviour with this action and answer. *)
NeverSeen == ~(act.name = SoughtAction /\ \E k \in DOMAIN act \cap {"verdict", "answer", "reply", "cause"} : act[k] = SoughtAnswer)

(* Members differ in nothing but their names. *)
Alike == Permutations(WorldMembers)
=============================================================================
