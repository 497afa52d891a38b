"""The renter's side: find a host, pay within a bound, ask, move on when a host fails, get the rest back."""

from fabstir.renter.answer import AnswerReport
from fabstir.renter.market import Market, ModelListing
from fabstir.renter.session import Session
from fabstir.renter.settings import RenterSettings
from fabstir.renter.settling import Settlement, Stage

__all__ = ["AnswerReport", "Market", "ModelListing", "RenterSettings", "Session", "Settlement", "Stage"]
